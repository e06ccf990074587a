// A block device as an image: a loop device, where this machine and our rights allow one.

import CLinux
import Glibc
import HostIO
import SharedRing
import Testing

@testable import DiskImages

/// A machine for the suite has loop devices and gives them to root; one that has not says so in its result.
private func reportNoLoopDevice() {
    if getuid() == 0, unsafe access("/dev/loop-control", F_OK) == 0 {
        Issue.record("no loop device to be had")
    } else {
        print("NOT RUN: needs root and /dev/loop-control")
    }
}

/// A loop device on a scratch file; nil where there is none to be had.
private final class LoopDevice {
    let scratch = Scratch()
    let path: String

    init?(byteCount: Int, sector: Int = 512) throws {
        let backing = try scratch.image(byteCount: byteCount)
        // Not popen: children of other tests would inherit its pipe.
        let answer = "\(scratch.path)/answer"
        let command = "losetup --sector-size \(sector) -f --show \(backing) >\(answer) 2>&1"
        guard getuid() == 0, unsafe system(command) == 0 else { return nil }
        var line = [UInt8](repeating: 0, count: 64)
        let file = try OpenFile(path: answer, flags: O_RDONLY)
        let count = unsafe read(file.descriptor, &line, line.count)
        path = String(decoding: line.prefix(max(0, count)).prefix { $0 > 32 }, as: UTF8.self)
        // A loop device keeps this from its last use.
        _ = unsafe system("blockdev --setrw \(path)")
    }

    deinit { _ = unsafe system("losetup -d \(path)") }
}

@Suite(.serialized) struct BlockDeviceTests {
    @Test(arguments: [512, 4096])
    func facts(sector: Int) async throws {
        guard let device = try LoopDevice(byteCount: 8 << 20, sector: sector) else {
            return reportNoLoopDevice()
        }
        let image = try RawImage.open(device.path, writer)
        #expect(image.facts.kind == .blockDevice)
        #expect(image.facts.byteCount == 8 << 20)
        #expect(image.facts.logicalBlockSize == sector)
        #expect(image.directIO == .used)
        #expect(!image.facts.canDiscardSecurely)
        if sector == 4096 {
            #expect(failure(device.path, .shared, block: 512)?.reason == .size)
        }
        try await withLoop { loop in
            let pages = try PrivatePages(byteCount: 1 << 20)
            for page in 0..<256 { pages.slot(at: page * 4096, byteCount: 4096).set8(1, at: 5) }
            let waiter = Waiter(loop: loop)
            #expect(await waiter.write(image, at: 0, from: pages, count: 1 << 20) == 1 << 20)
            if image.facts.canDiscard {
                let discarded = await waiter.result { loop, id in
                    image.discard(offset: 0, length: 1 << 19, secure: false, on: loop, target: id, slot: 0)
                }
                #expect(discarded == 0)
            }
            let erased = await waiter.result { loop, id in
                image.discard(offset: 0, length: 4096, secure: true, on: loop, target: id, slot: 0)
            }
            #expect(erased == -EOPNOTSUPP)
            #expect(await waiter.read(image, at: 1 << 19, into: pages, count: 8192) == 8192)
            #expect(pages.slot(at: 0, byteCount: 8192).u8(5) == 1)
        }
    }

    @Test func writersExcludeEachOther() async throws {
        guard let device = try LoopDevice(byteCount: 1 << 20) else {
            return reportNoLoopDevice()
        }
        do {
            let image = try RawImage.open(device.path, writer)
            let failure = failure(device.path, .exclusive)
            guard case .locked(let holder?) = failure?.reason else {
                Issue.record("not refused: \(String(describing: failure))")
                return
            }
            #expect(holder.process == getpid() && holder.device == "vbd/7/51712")
            withExtendedLifetime(image) {}
        }
    }

    /// Whatever else a device is called, and what it stands on: it is the same disk.
    @Test func aDeviceUnderOtherNames() throws {
        guard let device = try LoopDevice(byteCount: 1 << 20) else { return reportNoLoopDevice() }
        let site = try DiskSite.find(device.path)
        guard case .device(let number) = site.node else { return #expect(Bool(false), "no device") }
        let alias = "\(device.scratch.path)/pipe"
        try #require(unsafe mknod(alias, 0o060600, dev_t(number)) == 0)
        let file = "\(device.scratch.path)/disk.img"
        // By its locks: both names lead to the kernel's own node.
        let image = try RawImage.open(device.path, writer)
        #expect(try DiskSite.find(alias).path == device.path)
        #expect(failure(alias, .readOnly)?.isLocked == true)
        // By XenStore's word: the file that it stands on.
        var options = ImageOptions(access: .readOnly, owner: "vbd/8/51712")
        options.neighbours = [
            DiskNeighbour(name: "disk xvda of domain 7", place: .device(number), access: .exclusive, isSameGuest: false)
        ]
        for name in [file, alias, device.path] {
            let failure = failure(name, options)
            #expect(failure?.reason == .inUse && failure?.message.contains("disk xvda of domain 7") ?? false)
        }
        withExtendedLifetime(image) {}
    }

    @Test func whatTheHostHasMounted() throws {
        guard let device = try LoopDevice(byteCount: 4 << 20) else { return reportNoLoopDevice() }
        let point = "\(device.scratch.path)/pipe"
        let file = "\(device.scratch.path)/disk.img"
        _ = unsafe system("mkdir \(point)")
        try #require(unsafe system("mkfs.ext4 -q -F \(device.path)") == 0, "mkfs.ext4 is needed")
        defer { _ = unsafe system("umount \(point) 2>/dev/null") }
        for (options, reader) in [("rw", false), ("ro", true)] {
            try #require(unsafe system("mount -o \(options) \(device.path) \(point)") == 0)
            for name in [device.path, file] {
                #expect((failure(name, .readOnly) == nil) == reader, "\(name), mounted \(options)")
                let refused = failure(name, .exclusive)
                #expect(refused?.reason == .inUse && refused?.message.contains("mounted") ?? false)
                #expect(refused?.message.contains(point) ?? false)
                #expect(failure(name, .shared) == nil)
            }
            try #require(unsafe system("umount \(point)") == 0)
        }
        #expect(failure(device.path, .exclusive) == nil)
    }

    @Test func aReadOnlyDeviceIsNotForWriting() throws {
        guard let device = try LoopDevice(byteCount: 1 << 20) else { return reportNoLoopDevice() }
        try #require(unsafe system("blockdev --setro \(device.path)") == 0)
        for access in [ImageOptions.Access.exclusive, .shared] {
            let failure = failure(device.path, access)
            #expect(failure?.reason == .notPermitted)
            #expect(failure?.message.contains("read-only device") ?? false, "\(String(describing: failure))")
        }
        #expect(failure(device.path, .readOnly) == nil)
        try #require(unsafe system("blockdev --setrw \(device.path)") == 0)
        #expect(failure(device.path, .exclusive) == nil)
    }

    /// The same guest's second name for a device, though only one open file can have it for itself.
    @Test func aGuestBesideItself() throws {
        guard let device = try LoopDevice(byteCount: 1 << 20) else { return reportNoLoopDevice() }
        let first = try RawImage.open(
            device.path,
            ImageOptions(access: .exclusive, owner: "vbd/7/51712", guest: "one")
        )
        var second = ImageOptions(access: .exclusive, owner: "vbd/9/51712", guest: "one")
        second.neighbours = [
            DiskNeighbour(name: "itself", place: .path(device.path), access: .exclusive, isSameGuest: true)
        ]
        #expect(failure(device.path, second) == nil)
        withExtendedLifetime(first) {}
    }

    @Test func deviceWithoutASize() {
        // An unused loop device.
        let failure = failure("/dev/loop7", .readOnly)
        #expect(failure == nil || failure?.reason == .size || failure?.reason == .missing)
    }
}
