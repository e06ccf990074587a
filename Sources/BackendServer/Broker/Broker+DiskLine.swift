// From an xl disk line to the disk that the toolstack half attaches.

internal import ControlProtocol
internal import Hypervisor
internal import XenWire

extension Broker {
    /// The script that xl would be told; its name makes a `vbd` ours.
    static let script = "/etc/xen/scripts/block-xenback"

    /// - Throws: `.badDiskLine`; `.notSupported` for disks that are not ours to serve.
    func specification(_ call: BlockAttach) async throws(ControlError) -> DiskSpecification {
        let line: DiskLine
        do throws(DiskLineError) {
            line = try DiskLine(parsing: call.disk)
        } catch {
            throw .badDiskLine(reason: error.reason, position: error.position)
        }
        let own = hypervisor.domains.own
        if let backend = line.backendDomain, try await domain(backend) != own {
            throw .notSupported(reason: "the disk's backend domain is \(backend), not this one (\(own))")
        }
        if line.backendType == .qdisk {
            throw .notSupported(reason: "backendtype=qdisk is QEMU's here; leave it out, or say backendtype=tap")
        }
        return DiskSpecification(
            domain: try await domain(call.domain),
            kind: line.backendType == .tap ? .vbd3 : .vbd,
            index: line.vdev.number,
            node: line.vdev.name,
            target: line.target,
            readOnly: line.access == .readOnly,
            isShared: line.access == .sharedWrite,
            isCDROM: line.cdrom,
            isRemovable: line.removable,
            directIOSafe: line.directIOSafe,
            discard: line.discard ?? true,
            trusted: line.trusted ?? true,
            script: line.script ?? Broker.script
        )
    }
}
