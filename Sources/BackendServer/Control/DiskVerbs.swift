// The broker's verbs for disks, and the conversion of an xl disk line to the disk that the toolstack half attaches.

internal import BackendCore
internal import ControlProtocol
internal import Hypervisor
internal import XenWire

extension Broker {
    /// The script that an xl line would name; its name makes a `vbd` ours.
    static let script = "/etc/xen/scripts/block-xenback"
}

extension BrokerVerbs {
    func addDiskVerbs(to dispatch: inout ControlDispatch) {
        dispatch.on(BlockList.self) { call throws(ControlError) in
            try await broker.forward(call, to: try await domain(call.domain), none: BlockList.Reply(disks: [])) {
                $0.isDisk
            }
        }
        dispatch.on(BlockResize.self) { call throws(ControlError) in
            try await broker.forward(call, to: try await domain(call.domain))
        }
        dispatch.on(MediaInsert.self) { call throws(ControlError) in
            try await broker.forward(call, to: try await domain(call.domain))
        }
        dispatch.on(MediaEject.self) { call throws(ControlError) in
            try await broker.forward(call, to: try await domain(call.domain))
        }
        dispatch.on(BlockAttach.self) { call throws(ControlError) in
            let toolstack = try toolstack()
            let disk = try await specification(call)
            try await toolstack.attach(disk)
            return BlockAttach.Reply(device: await broker.shown(disk.path))
        }
        dispatch.on(BlockDetach.self) { call throws(ControlError) in
            let toolstack = try toolstack()
            let path = try await disk(call.device, of: try await domain(call.domain))
            try await toolstack.detach(path, force: call.force ?? false)
            return NoParameters()
        }
    }

    private func disk(_ text: String, of domain: DomainID) async throws(ControlError) -> DevicePath {
        var disks: [DeviceName] = []
        for path in await broker.listing.devices(of: domain).map(\.path) where path.kind.isDisk {
            disks.append(DeviceName(path, node: (try? await store.read(path.key(BlockKeys.device))) ?? nil))
        }
        return try DeviceName.only(text, of: domain, among: disks)
    }

    /// - Throws: `.badDiskLine`; `.notSupported` for disks that are not ours to serve.
    private func specification(_ call: BlockAttach) async throws(ControlError) -> DiskSpecification {
        let line: DiskLine
        do throws(DeviceLineError) {
            line = try DiskLine(parsing: call.disk)
        } catch {
            throw .badDiskLine(reason: error.reason, position: error.position)
        }
        do throws(DiskTargetFault) { try DiskTarget(parsing: line.qualifiedTarget)?.requireServed() } catch {
            throw .notSupported(reason: "\(error)")
        }
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
            target: line.qualifiedTarget,
            readOnly: line.access == .readOnly,
            isShared: line.access == .sharedWrite,
            isCDROM: line.cdrom,
            isRemovable: line.removable,
            directIOSafe: line.directIOSafe,
            discard: line.discard ?? true,
            trusted: line.trusted ?? true,
            script: line.script ?? Broker.script
        )
        try await refuseForeign(disk)
        return disk
    }

    /// A disk that no class of ours would serve is refused now; otherwise that would show only after 10 s.
    private func refuseForeign(_ disk: DiskSpecification) async throws(ControlError) {
        let values = [BusKeys.script: disk.script]
        let keys = BackendNodes(path: disk.path, own: own, values: values)
        if await broker.classes.owner(of: keys) != nil { return }
        throw .notSupported(
            reason: disk.script == Broker.script
                ? "disks of kind \(disk.kind) are not served here: see [block] in xenbackd.toml"
                : "script=\(disk.script) is not ours, so nobody here would serve the disk; leave script= out,"
                    + " or attach it with xl block-attach"
        )
    }
}
