// A host's storage in a few lines, for what no test machine has: device-mapper, RAID, partitions, mounts.

import SystemPackage

@testable import DiskImages

struct FakeStorage: HostStorage {
    var names: [String: PathFacts] = [:]
    var devices: [UInt64: StorageDevice] = [:]
    var mounted: [StorageMount] = []

    func look(at path: String) throws(Errno) -> PathFacts {
        guard let facts = names[path] else { throw .noSuchFileOrDirectory }
        return facts
    }
    func device(_ number: UInt64) -> StorageDevice? { devices[number] }
    func mounts() -> [StorageMount] { mounted }

    mutating func file(_ path: String, inode: UInt64, isWritable: Bool = true) {
        let node = StorageNode.file(fileSystem: 1, inode: inode)
        names[path] = PathFacts(kind: .file, node: node, isWritable: isWritable)
    }

    mutating func device(
        _ path: String,
        _ number: UInt64,
        megabytes: UInt64,
        partition: (whole: UInt64, start: UInt64)? = nil,
        backing: (node: StorageNode, offset: UInt64)? = nil,
        slaves: [UInt64] = []
    ) {
        alias(path, number)
        devices[number] = StorageDevice(
            path: path,
            byteCount: megabytes << 20,
            partition: partition,
            backing: backing,
            slaves: slaves
        )
    }

    /// Another node of the same device, as mknod(1) makes it.
    mutating func alias(_ path: String, _ number: UInt64) {
        names[path] = PathFacts(kind: .blockDevice, node: .device(number), isWritable: true)
    }

    mutating func mount(_ number: UInt64, at point: String, isReadOnly: Bool = false) {
        mounted.append(StorageMount(node: .device(number), point: point, isReadOnly: isReadOnly))
    }

    /// A host with one of everything.
    static var host: FakeStorage {
        var host = FakeStorage()
        host.file("/a.img", inode: 10)
        host.file("/b.img", inode: 11)
        host.device("/dev/sda", 0x800, megabytes: 100)
        host.device("/dev/sda1", 0x801, megabytes: 40, partition: (0x800, 1 << 20))
        host.device("/dev/sda2", 0x802, megabytes: 50, partition: (0x800, 41 << 20))
        // A volume group on sda2, and an alias of the whole of it.
        host.device("/dev/dm-0", 0xFD00, megabytes: 10, slaves: [0x802])
        host.device("/dev/dm-1", 0xFD01, megabytes: 20, slaves: [0x802])
        host.device("/dev/dm-2", 0xFD02, megabytes: 40, slaves: [0x801])
        // Two paths to one disk.
        host.device("/dev/sdb", 0x810, megabytes: 7)
        host.device("/dev/sdc", 0x820, megabytes: 7)
        host.device("/dev/dm-3", 0xFD03, megabytes: 7, slaves: [0x810, 0x820])
        host.device("/dev/loop0", 0x700, megabytes: 8, backing: (.file(fileSystem: 1, inode: 10), 0))
        // Two halves of one file, and a loop device on a loop device.
        host.device("/dev/loop1", 0x701, megabytes: 4, backing: (.file(fileSystem: 1, inode: 11), 0))
        host.device("/dev/loop2", 0x702, megabytes: 4, backing: (.file(fileSystem: 1, inode: 11), 4 << 20))
        host.device("/dev/loop3", 0x703, megabytes: 8, backing: (.device(0x700), 0))
        host.alias("/images/alias", 0x701)
        return host
    }
}
