// The connection ring of a USB frontend: what is plugged in where, and who wants to know.

internal import Hypervisor
internal import SharedRing
internal import XenWire

/// The ring, filled with requests that wait for events. Belongs to its `USBFrontend`.
final class ConnectionFrontRing {
    let grant: SharedGrant
    private var ring: FrontRing
    private let scratch: PrivatePages

    init(hypervisor: any Hypervisor, backend: DomainID) throws(FrontendFailure) {
        let sharing = hypervisor.sharing
        grant = try FrontendDrivers.hypervisor { () throws(HypervisorFailure) in
            try sharing.share(pageCount: 1, with: backend, access: .readWrite)
        }
        ring = FrontRing(pages: grant.pages, stride: USBWire.connectionStride)
        do { scratch = try PrivatePages(byteCount: SharedPages.pageSize) } catch {
            throw .hypervisor(HypervisorFailure("allocate an event slot", error))
        }
    }

    /// Posts requests for as many events as the ring has slots.
    /// - Returns: whether the backend wants to be told.
    func post() -> Bool {
        for id in 0..<ring.free {
            let request = ConnectionRequest(id: UInt16(truncatingIfNeeded: id))
            ring.put(request.words, count: USBWire.connectionRequestSize)
        }
        return ring.push()
    }

    /// Takes all events, posts their requests again, and arms the ring.
    /// - Returns: whether the backend wants to be told.
    /// - Throws: for an event that is the end of the controller for xen-hcd.
    func takeEvents(_ body: (USBPortEvent) -> Void, portCount: Int) throws(FrontendFailure) -> Bool {
        var tell = false
        var count = try look(&ring) { (ring) throws(ResponseProducerFault) in try ring.poll() }
        while count > 0 {
            while ring.waiting > 0 {
                let slot = scratch.slot(at: 0, byteCount: USBWire.connectionResponseSize)
                ring.takeNext(into: slot, count: USBWire.connectionResponseSize)
                let response = ConnectionResponse(decoding: slot)
                guard let port = response.port, Int(port.number) <= portCount,
                    let speed = USBIFSpeed(rawValue: response.speed)
                else { throw .badResponse(id: UInt64(response.id)) }
                body(USBPortEvent(port, speed))
                ring.put(ConnectionRequest(id: response.id).words, count: USBWire.connectionRequestSize)
            }
            if ring.push() { tell = true }
            count = try look(&ring) { (ring) throws(ResponseProducerFault) in try ring.lastLook() }
        }
        return tell
    }
}
