// Which files are in memory, and transfers that end where they are called.

import CLinux
import Glibc
import HostIO
import SharedRing
import Testing

@Suite struct OpenFileTests {
    private func memoryFile() -> OpenFile {
        OpenFile(adopting: unsafe memfd_create("open-file", UInt32(MFD_CLOEXEC)))
    }

    @Test func onlyOrdinaryFilesOnMemoryFileSystemsAreInMemory() throws {
        #expect(memoryFile().isInMemory)
        // Its node lies on devtmpfs, which statfs(2) calls tmpfs.
        #expect(try !OpenFile(path: "/dev/null", flags: O_RDWR).isInMemory)
        #expect(try !OpenFile(path: "/proc/self/status", flags: O_RDONLY).isInMemory)
        #expect(!OpenFile(adopting: eventfd(0, 0)).isInMemory)
    }

    @Test func runsAreMovedInFileOrder() throws {
        let file = memoryFile()
        let pages = try PrivatePages(byteCount: 8192)
        pages.write(Array("firstsecond".utf8), at: 0)
        var runs = IORuns()
        runs.append(offset: 5, byteCount: 6)
        runs.append(offset: 0, byteCount: 5)
        #expect(file.writeNow(at: 100, from: pages, runs: runs) == 11)
        runs.removeAll()
        runs.append(offset: 4096, byteCount: 4)
        runs.append(offset: 5000, byteCount: 7)
        #expect(file.readNow(at: 100, into: pages, runs: runs) == 11)
        #expect(bytes(pages, 4096, 4) == Array("seco".utf8))
        #expect(bytes(pages, 5000, 7) == Array("ndfirst".utf8))
        #expect(file.synchronizeNow() == 0)
    }

    @Test func endsAndErrorsAreThoseOfCompletions() throws {
        let file = memoryFile()
        let pages = try PrivatePages(byteCount: 4096)
        #expect(ftruncate(file.descriptor, 1000) == 0)
        #expect(file.readNow(at: 600, into: pages, runs: IORuns(offset: 0, byteCount: 4096)) == 400)
        #expect(file.readNow(at: 1000, into: pages, runs: IORuns(offset: 0, byteCount: 4096)) == 0)
        let readOnly = try OpenFile(path: "/proc/self/fd/\(file.descriptor)", flags: O_RDONLY)
        #expect(readOnly.isInMemory)
        #expect(readOnly.writeNow(at: 0, from: pages, runs: IORuns(offset: 0, byteCount: 1)) == -EBADF)
        #expect(file.readNow(at: .max, into: pages, runs: IORuns(offset: 0, byteCount: 1)) <= 0)
    }

    private func bytes(_ pages: PrivatePages, _ offset: Int, _ count: Int) -> [UInt8] {
        let slot = pages.slot(at: offset, byteCount: count)
        return (0..<count).map { slot.u8($0) }
    }
}
