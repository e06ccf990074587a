// A path resolved: what it refers to, what that lies on, and who else uses it.

internal import CLinux
internal import SystemPackage

/// The place of a disk on the host. Finding it reads sysfs and may wait for a file system: not for a loop.
public struct DiskSite: Sendable {
    /// The name that was given.
    public let name: String
    /// The name to open it by: for a device the kernel's own node, so that everybody locks the same inode.
    public let path: String
    public let node: StorageNode
    let isDevice: Bool
    let isWritable: Bool
    let extents: DiskExtents

    /// - Throws: what is wrong with the name; it is not opened.
    public static func find(_ path: String) throws(ImageFailure) -> DiskSite { try DiskSite(path, KernelStorage()) }

    init(_ path: String, _ storage: some HostStorage) throws(ImageFailure) {
        let facts: PathFacts
        do throws(Errno) { facts = try storage.look(at: path) } catch { throw .opening(path, writing: false, error) }
        switch facts.kind {
        case .file, .blockDevice: break
        case .directory: throw ImageFailure(path, .wrongKind, "\(path): is a directory; name an image file in it")
        case .other: throw ImageFailure(path, .wrongKind, "\(path): is neither a file nor a block device")
        }
        var known = path
        if case .device(let number) = facts.node, let own = storage.device(number)?.path,
            (try? storage.look(at: own))?.node == facts.node
        {
            known = own
        }
        name = path
        self.path = known
        node = facts.node
        isDevice = facts.kind == .blockDevice
        isWritable = facts.isWritable
        extents = DiskExtents(of: facts.node, storage)
    }

    /// `physical-device`, as the toolstack's scripts write it: major and minor number in hexadecimal. nil for files.
    public var physicalDevice: String? {
        guard case .device(let number) = node else { return nil }
        return "\(String(linux_major(number), radix: 16)):\(String(linux_minor(number), radix: 16))"
    }

    /// The device number in a `physical-device` node.
    public static func device(physical text: String) -> UInt64? {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false).map { UInt32($0, radix: 16) }
        guard parts.count == 2, let major = parts[0], let minor = parts[1] else { return nil }
        return linux_device(major, minor)
    }

    /// Refuses an image that another guest or the host itself uses in an incompatible way.
    func refuse(_ options: ImageOptions, _ storage: some HostStorage) throws(ImageFailure) {
        if options.access == .shared { return }
        let cure = "share it on purpose with target=shared:\(name)"
        for mount in storage.mounts() {
            if SharingRules.permits(options.access, beside: .mount(isReadOnly: mount.isReadOnly)) { continue }
            guard DiskExtents(of: mount.node, storage).overlap(extents) else { continue }
            let how = mount.isReadOnly ? "mounted" : "mounted read-write"
            let text = "\(name): is \(how) at \(mount.point) by the host itself; unmount it there, or \(cure)"
            throw ImageFailure(name, .inUse, text)
        }
        for other in options.neighbours where !SharingRules.permits(options.access, beside: other.use) {
            guard let node = other.node(storage), DiskExtents(of: node, storage).overlap(extents) else { continue }
            let how = other.access == .readOnly ? "reads" : "writes"
            throw ImageFailure(name, .inUse, "\(name): is in use by \(other.name), which \(how) it; \(cure)")
        }
    }

    /// Whether another disk of the same guest lies on the same bytes.
    func isShared(withSameGuest options: ImageOptions, _ storage: some HostStorage) -> Bool {
        options.neighbours.contains { other in
            other.isSameGuest && other.node(storage).map { DiskExtents(of: $0, storage).overlap(extents) } ?? false
        }
    }
}

extension DiskNeighbour {
    /// nil if its image is gone, or not visible to us.
    func node(_ storage: some HostStorage) -> StorageNode? {
        switch place {
        case .device(let number): .device(number)
        case .path(let path): (try? storage.look(at: path))?.node
        }
    }
}
