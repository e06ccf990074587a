// What a disk is, whatever it is called, and who may have it beside whom: the table, a test for each cell.

import CLinux
import Glibc
import Testing

@testable import DiskImages

@Suite struct SharingTests {
    /// Which of the host's names share bytes with which.
    static let sameBytes: [(String, [String])] = [
        ("/a.img", ["/dev/loop0", "/dev/loop3"]),
        ("/b.img", ["/dev/loop1", "/dev/loop2", "/images/alias"]),
        ("/dev/loop1", ["/b.img", "/images/alias"]),
        ("/dev/loop2", ["/b.img"]),
        ("/dev/loop3", ["/a.img", "/dev/loop0"]),
        ("/images/alias", ["/b.img", "/dev/loop1"]),
        ("/dev/sda", ["/dev/sda1", "/dev/sda2", "/dev/dm-0", "/dev/dm-1", "/dev/dm-2"]),
        ("/dev/sda1", ["/dev/sda", "/dev/dm-2"]),
        ("/dev/sda2", ["/dev/sda", "/dev/dm-0", "/dev/dm-1"]),
        // Two volumes of a group are two disks.
        ("/dev/dm-0", ["/dev/sda", "/dev/sda2"]),
        ("/dev/dm-2", ["/dev/sda", "/dev/sda1"]),
        ("/dev/sdb", ["/dev/dm-3"]),
        ("/dev/dm-3", ["/dev/sdb", "/dev/sdc"]),
    ]

    @Test(arguments: sameBytes)
    func whatADiskIs(_ path: String, _ others: [String]) throws {
        let host = FakeStorage.host
        let extents = try DiskSite(path, host).extents
        for other in host.names.keys where other != path {
            let isSame = extents.overlap(try DiskSite(other, host).extents)
            #expect(isSame == others.contains(other), "\(path) and \(other)")
        }
    }

    @Test func aLoopOfLoopDevicesEnds() throws {
        var host = FakeStorage()
        host.device("/dev/loop0", 0x700, megabytes: 8, backing: (.device(0x701), 0))
        host.device("/dev/loop1", 0x701, megabytes: 8, backing: (.device(0x700), 512))
        #expect(try DiskSite("/dev/loop0", host).extents.overlap(DiskSite("/dev/loop1", host).extents))
    }

    /// The cells, in the words of /etc/xen/scripts/block: who asks, who is there, whether it is allowed.
    static let table: [(ImageOptions.Access, OtherUse, Bool)] = [
        (.readOnly, .mount(isReadOnly: true), true), (.readOnly, .mount(isReadOnly: false), false),
        (.exclusive, .mount(isReadOnly: true), false), (.exclusive, .mount(isReadOnly: false), false),
        (.shared, .mount(isReadOnly: true), true), (.shared, .mount(isReadOnly: false), true),
        (.readOnly, .guest(.readOnly), true), (.readOnly, .guest(.exclusive), false),
        (.readOnly, .guest(.shared), true),
        (.exclusive, .guest(.readOnly), false), (.exclusive, .guest(.exclusive), false),
        (.exclusive, .guest(.shared), false),
        (.shared, .guest(.readOnly), true), (.shared, .guest(.exclusive), true), (.shared, .guest(.shared), true),
        (.readOnly, .sameGuest, true), (.exclusive, .sameGuest, true), (.shared, .sameGuest, true),
        (.readOnly, .program(writes: true, refusesWriters: true), false),
        (.readOnly, .program(writes: false, refusesWriters: true), true),
        (.exclusive, .program(writes: true, refusesWriters: false), false),
        (.exclusive, .program(writes: false, refusesWriters: true), false),
        (.exclusive, .program(writes: false, refusesWriters: false), true),
        (.shared, .program(writes: true, refusesWriters: true), true),
    ]

    @Test(arguments: table)
    func rule(_ access: ImageOptions.Access, _ other: OtherUse, _ isAllowed: Bool) throws {
        #expect(SharingRules.permits(access, beside: other) == isAllowed)
        // The same cell by way of a disk that is there under another name.
        var host = FakeStorage.host
        var options = ImageOptions(access: access, owner: "vbd/7/51712")
        let place = DiskNeighbour.Place.path("/dev/loop0")
        switch other {
        case .mount(let isReadOnly): host.mount(0x700, at: "/mnt", isReadOnly: isReadOnly)
        case .guest(let use):
            options.neighbours = [DiskNeighbour(name: "disk xvda of 8", place: place, access: use, isSameGuest: false)]
        case .sameGuest:
            options.neighbours = [DiskNeighbour(name: "xvdb", place: place, access: .exclusive, isSameGuest: true)]
        case .program: return
        }
        let site = try DiskSite("/a.img", host)
        do throws(ImageFailure) {
            try site.refuse(options, host)
            #expect(isAllowed)
        } catch {
            #expect(!isAllowed && error.reason == .inUse, "\(error)")
            #expect(error.message.contains("/mnt") || error.message.contains("disk xvda of 8"), "\(error)")
        }
    }

    @Test func strangersDoNotMatter() throws {
        var host = FakeStorage.host
        host.mount(0x810, at: "/srv")
        var options = ImageOptions(access: .exclusive, owner: "vbd/7/51712")
        options.neighbours = [
            DiskNeighbour(name: "gone", place: .path("/gone.img"), access: .exclusive, isSameGuest: false),
            DiskNeighbour(name: "other", place: .path("/b.img"), access: .exclusive, isSameGuest: false),
            DiskNeighbour(name: "third", place: .device(0xFD01), access: .exclusive, isSameGuest: false),
        ]
        try DiskSite("/a.img", host).refuse(options, host)
        try DiskSite("/dev/dm-0", host).refuse(options, host)
    }

    /// The kernel's number of a disk that its script has written.
    @Test func aDeviceNumberOfTheKernelsScript() throws {
        let host = FakeStorage.host
        let number = try #require(DiskSite.device(physical: "7:0"))
        #expect(number == 0x700 && DiskSite.device(physical: "fd:2") == 0xFD02)
        #expect(try DiskSite("/dev/dm-2", host).physicalDevice == "fd:2")
        #expect(try DiskSite("/a.img", host).physicalDevice == nil)
        for text in ["", "7", "7:", ":0", "7:0:0", "x:y", "-7:0"] { #expect(DiskSite.device(physical: text) == nil) }
        var options = ImageOptions(access: .readOnly, owner: "vbd/7/51712")
        options.neighbours = [
            DiskNeighbour(name: "the kernel's", place: .device(number), access: .exclusive, isSameGuest: false)
        ]
        #expect(throws: ImageFailure.self) { () throws in try DiskSite("/a.img", host).refuse(options, host) }
    }

    /// A folder that looks like sysfs.
    @Test func sysfsIsRead() throws {
        let scratch = Scratch()
        let base = "\(scratch.path)/sys/dev/block"
        defer { _ = unsafe system("rm -r \(scratch.path)/sys \(scratch.path)/mounts") }
        func put(_ path: String, _ text: String) {
            _ = unsafe system("mkdir -p $(dirname '\(path)') && printf '%s\\n' '\(text)' >'\(path)'")
        }
        put("\(base)/8:0/size", "2048")
        put("\(base)/8:0/dev", "8:0")
        put("\(base)/8:0/uevent", "MAJOR=8\nDEVNAME=sda\nDEVTYPE=disk")
        put("\(base)/8:0/sda1/size", "1024")
        put("\(base)/8:0/sda1/partition", "1")
        put("\(base)/8:0/sda1/start", "512")
        put("\(base)/8:0/sda1/uevent", "DEVNAME=sda1")
        _ = unsafe system("ln -s 8:0/sda1 \(base)/8:1")
        put("\(base)/253:0/size", "1024")
        put("\(base)/253:0/uevent", "DEVNAME=dm-0")
        put("\(base)/253:0/slaves/sda1/dev", "8:1")
        var kernel = KernelStorage(system: "\(scratch.path)/sys")
        let disk = try #require(DiskSite.device(physical: "8:0"))
        let second = try #require(DiskSite.device(physical: "8:1"))
        let third = try #require(DiskSite.device(physical: "fd:0"))
        let partition = try #require(kernel.device(second))
        #expect(partition.path == "/dev/sda1" && partition.byteCount == 1024 * 512)
        #expect(partition.partition?.whole == disk && partition.partition?.start == 512 * 512)
        let mapped = try #require(kernel.device(third))
        #expect(mapped.slaves == [second])
        #expect(kernel.device(disk + 99) == nil)
        put(
            "\(scratch.path)/mounts",
            """
            21 1 8:1 / /mnt/with\\040blank rw,relatime shared:1 - ext4 /dev/sda1 rw
            22 1 8:0 /sub /ro ro - ext4 /dev/sda ro,errors=x
            23 1 0:25 / /sys rw - sysfs sysfs rw
            """
        )
        kernel.mountTable = "\(scratch.path)/mounts"
        let mounts = kernel.mounts()
        #expect(mounts.map(\.point) == ["/mnt/with blank", "/ro"])
        #expect(mounts.map(\.isReadOnly) == [false, true])
    }
}
