// What a write says when there is no room, and which words the log has for it.

import CLinux
import Glibc
import HostIO
import SharedRing
import Testing

@testable import DiskImages

/// Mounts a file system in memory of one MiB, which needs root. Nil if it cannot.
private final class SmallDisk {
    let scratch = Scratch()
    init?() {
        if unsafe mount("none", scratch.path, "tmpfs", 0, "size=1m") != 0 { return nil }
    }
    deinit { _ = unsafe umount2(scratch.path, CInt(MNT_DETACH)) }
}

@Suite struct FullDiskTests {
    @Test func noSpaceLeft() async throws {
        guard let disk = SmallDisk() else {
            print("not run: mounting needs root")
            return
        }
        let path = try disk.scratch.image(byteCount: 16 << 20)
        let image = try RawImage.open(path, writer)
        try await withLoop { loop in
            let pages = try PrivatePages(byteCount: 4 << 20)
            let waiter = Waiter(loop: loop)
            var offset: UInt64 = 0
            var result: Int32 = 0
            repeat {
                result = await waiter.write(image, at: offset, from: pages, count: 1 << 18)
                offset += 1 << 18
            } while result > 0 && offset < 4 << 20
            #expect(result == -ENOSPC)
            let text = image.trouble("write", offset: offset, result: result)
            #expect(text.contains("its file system is full"))
        }
    }

    @Test func fileSizeLimit() async {
        await #expect(processExitsWith: .success) {
            signal(SIGXFSZ, SIG_IGN)
            var limit = rlimit(rlim_cur: 1 << 20, rlim_max: 1 << 20)
            let scratch = Scratch()
            let path = try scratch.image(byteCount: 1 << 20)
            let image = try RawImage.open(path, writer)
            precondition(unsafe setrlimit(__rlimit_resource_t(RLIMIT_FSIZE.rawValue), &limit) == 0)
            try await withLoop { loop in
                let pages = try PrivatePages(byteCount: 4096)
                let result = await Waiter(loop: loop).write(image, at: 1 << 20, from: pages, count: 4096)
                precondition(result == -EFBIG)
                precondition(image.trouble("write", offset: 1 << 20, result: result).contains("largest file"))
            }
        }
    }
}
