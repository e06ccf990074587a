// From an xl disk line to the disk that the toolstack half attaches.

internal import BackendCore
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
        do throws(DiskTargetFault) { _ = try DiskTarget(parsing: line.target) } catch {
            throw .notSupported(reason: "\(error)")
        }
        let own = hypervisor.domains.own
        if let backend = line.backendDomain, try await domain(backend) != own {
            throw .notSupported(reason: "the disk's backend domain is \(backend), not this one (\(own))")
        }
        if line.backendType == .qdisk {
            throw .notSupported(reason: "backendtype=qdisk is QEMU's here; leave it out, or say backendtype=tap")
        }
        let disk = DiskSpecification(
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
        try refuseForeign(disk)
        return disk
    }

    /// A disk that no class of ours would take up is refused now; otherwise nobody would, and that takes 10 s to see.
    private func refuseForeign(_ disk: DiskSpecification) throws(ControlError) {
        let values = [BusKeys.script: disk.script]
        if classes.owner(of: BackendKeys(path: disk.path, own: hypervisor.domains.own, values: values)) != nil {
            return
        }
        throw .notSupported(
            reason: disk.script == Broker.script
                ? "disks of kind \(disk.kind) are not served here: see [block] in xenbackd.toml"
                : "script=\(disk.script) is not ours, so nobody here would serve the disk; leave script= out,"
                    + " or attach it with xl block-attach"
        )
    }
}
