// The disks that XenStore says others have, for the rules of sharing: ours, the kernel's, QEMU's.

internal import DiskImages
internal import Hypervisor
internal import XenWire

/// The guest of a disk, as the rules see it.
struct BlockGuest: Hashable, Sendable {
    /// Its UUID's node, which stays the same over a migration; the domain's number where there is none.
    let identity: String
    /// Whether QEMU is its device model and opens its disks, according to libxl; nil where libxl says nothing.
    let isFullyVirtual: Bool?

    /// - Parameter own: the domain we run in.
    static func read(
        _ store: any XenStoreOperations,
        _ domain: DomainID,
        own: DomainID
    ) throws(HypervisorFailure) -> BlockGuest {
        BlockGuest(
            identity: try identity(store, domain, own: own) ?? "domain-\(domain)",
            isFullyVirtual: try store.read("/libxl/\(domain)/type").map { $0 == "hvm" }
        )
    }

    /// nil: the domain is gone, and only its devices' directories are left.
    static func identity(
        _ store: any XenStoreOperations,
        _ domain: DomainID,
        own: DomainID
    ) throws(HypervisorFailure) -> String? {
        // A device model's domain works for its guest (block-common.sh, `same_vm`).
        let target = try store.read("/local/domain/\(domain)/target").flatMap { DomainID(text: $0) } ?? domain
        if let vm = try store.read("/local/domain/\(target)/vm") { return vm }
        // Only the initial domain may list the others.
        if own == .initial, try store.directory("/local/domain/\(target)") == nil { return nil }
        return "domain-\(target)"
    }
}

/// Reading the neighbours.
enum BlockNeighbours {
    /// Kinds of backends that have disks.
    private static let kinds: [DeviceKind] = [.vbd, .vbd3, .qdisk]

    /// All disks of our own domain's backends but `path`.
    /// - Parameter guest: whose disk `path` is.
    static func read(
        _ store: any XenStoreOperations,
        but path: DevicePath,
        of guest: BlockGuest,
        own: DomainID
    ) throws(HypervisorFailure) -> [DiskNeighbour] {
        var neighbours: [DiskNeighbour] = []
        for kind in kinds {
            for domain in try store.directory("backend/\(kind)") ?? [] {
                guard let domain = DomainID(text: domain) else { continue }
                let identity = try BlockGuest.identity(store, domain, own: own)
                for index in try store.directory("backend/\(kind)/\(domain)") ?? [] {
                    guard let index = UInt32(decimal: index) else { continue }
                    let other = DevicePath(kind: kind, domain: domain, index: index)
                    guard other != path, let place = try place(store, other) else { continue }
                    let name = try store.read(other.key(BlockKeys.device)) ?? "\(index)"
                    neighbours.append(
                        DiskNeighbour(
                            name: "disk \(name) of domain \(domain) (\(kind)/\(domain)/\(index))",
                            place: place.place,
                            access: access(mode: try store.read(other.key(BlockKeys.mode)), isShared: place.isShared),
                            // The toolstack's script treats a guest that is gone as the same one, too.
                            isSameGuest: identity == nil || identity == guest.identity
                        )
                    )
                }
            }
        }
        return neighbours
    }

    /// What a disk's script or its backend has written, else what its line names if it is in use already.
    private static func place(
        _ store: any XenStoreOperations,
        _ path: DevicePath
    ) throws(HypervisorFailure) -> (place: DiskNeighbour.Place, isShared: Bool)? {
        let params = try store.read(path.key(BlockKeys.params)) ?? ""
        let target = (try? DiskTarget(parsing: params)) ?? nil
        let isShared = target?.isShared ?? false
        if let text = try store.read(path.key(BlockKeys.physicalDevice)), let number = DiskSite.device(physical: text) {
            return (.device(number), isShared)
        }
        if let name = try store.read(path.key(BlockKeys.physicalDevicePath)), !name.isEmpty {
            return (.path(name), isShared)
        }
        let isAnnounced = try store.read(path.key(BusKeys.hotplugStatus)) == "connected"
        let isUsed = isAnnounced ? true : try store.read(path.key(BusKeys.state)) == XenbusState.connected.text
        guard isUsed, let target else { return nil }
        return (.path(target.path), isShared)
    }

    /// block-common.sh, `canonicalise_mode`.
    static func access(mode: String?, isShared: Bool) -> ImageOptions.Access {
        guard let mode, mode.contains("w") else { return .readOnly }
        return isShared || mode.contains("!") ? .shared : .exclusive
    }
}
