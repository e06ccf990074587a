// The host's storage: nodes, block devices and what they are made of, mounts.

internal import SystemPackage

/// The host as `DiskSite` sees it; tests have their own.
protocol HostStorage: Sendable {
    /// What a name refers to now; symbolic links are followed.
    func look(at path: String) throws(Errno) -> PathFacts
    /// nil if there is no such device.
    func device(_ number: UInt64) -> StorageDevice?
    /// All mounts that this process can see.
    func mounts() -> [StorageMount]
}

/// What stat(2) says of a name.
struct PathFacts: Hashable, Sendable {
    enum Kind: Hashable, Sendable { case file, blockDevice, directory, other }
    let kind: Kind
    let node: StorageNode
    /// Whether anybody may write it, by its permission bits.
    let isWritable: Bool
}

/// What sysfs says of a block device.
struct StorageDevice: Hashable, Sendable {
    /// The kernel's own node for it: `/dev/loop0`.
    var path: String
    var byteCount: UInt64
    /// A partition: the number of its disk, and its first byte there.
    var partition: (whole: UInt64, start: UInt64)?
    /// A loop device: what it reads and writes, and the first byte there.
    var backing: (node: StorageNode, offset: UInt64)?
    /// The devices below a device-mapper device, a RAID or a cache.
    var slaves: [UInt64] = []

    static func == (one: StorageDevice, other: StorageDevice) -> Bool {
        one.path == other.path && one.byteCount == other.byteCount && one.slaves == other.slaves
            && one.partition?.whole == other.partition?.whole && one.partition?.start == other.partition?.start
            && one.backing?.node == other.backing?.node && one.backing?.offset == other.backing?.offset
    }

    func hash(into hasher: inout Hasher) { hasher.combine(path) }
}

/// A file system that the host uses itself.
struct StorageMount: Hashable, Sendable {
    let node: StorageNode
    let point: String
    /// The file system is read-only: a read-only bind mount of a writable one is not.
    let isReadOnly: Bool
}
