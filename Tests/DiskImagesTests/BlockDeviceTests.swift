// A block device as an image: a loop device, where this machine and our rights allow one.

import Glibc
import HostIO
import SharedRing
import Testing

@testable import DiskImages

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
    }

    deinit { _ = unsafe system("losetup -d \(path)") }
}

@Suite(.serialized) struct BlockDeviceTests {
    @Test(arguments: [512, 4096])
    func facts(sector: Int) async throws {
        guard let device = try LoopDevice(byteCount: 8 << 20, sector: sector) else {
            print("not run: no loop device")
            return
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
            let zeroed = await waiter.result { loop, id in
                image.writeZeroes(offset: 1 << 19, length: 4096, on: loop, target: id, slot: 0)
            }
            #expect(zeroed == 0)
            #expect(await waiter.read(image, at: 1 << 19, into: pages, count: 8192) == 8192)
            #expect(pages.slot(at: 0, byteCount: 8192).u8(5) == 0)
            #expect(pages.slot(at: 0, byteCount: 8192).u8(4096 + 5) == 1)
        }
    }

    @Test func writersExcludeEachOther() async throws {
        guard let device = try LoopDevice(byteCount: 1 << 20) else {
            print("not run: no loop device")
            return
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
        try await withLoop { loop in _ = try await RawImage.open(device.path, writer, patience: .seconds(20), on: loop)
        }
    }

    @Test func deviceWithoutASize() {
        // An unused loop device.
        let failure = failure("/dev/loop7", .readOnly)
        #expect(failure == nil || failure?.reason == .size || failure?.reason == .missing)
    }
}
