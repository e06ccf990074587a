// From an xl disk line to the disk that the toolstack half attaches.

internal import ControlProtocol
internal import XenWire

extension Broker {
    func specification(_ call: BlockAttach) async throws(ControlError) -> DiskSpecification {
        throw .notSupported(reason: "disk lines")
    }
}
