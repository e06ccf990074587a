// Opening raw images: facts, refusals and their words, and operations on files.

import CLinux
import Glibc
import HostIO
import SharedRing
import Testing

@testable import DiskImages

@Suite struct RawImageTests {
    let scratch = Scratch()

    @Test func factsOfAFile() throws {
        let path = try scratch.image(byteCount: 10 << 20)
        let image = try RawImage.open(path, writer)
        #expect(image.facts.kind == .file)
        #expect(image.facts.byteCount == 10 << 20)
        #expect(image.facts.sectorCount == 20480)
        #expect(image.facts.logicalBlockSize == 512)
        #expect(image.facts.physicalBlockSize == 4096)
        #expect(image.facts.canDiscard)
        #expect(!image.facts.canDiscardSecurely)
        #expect(image.facts.discardGranularity == 4096)
    }

    @Test func missingFile() {
        let failure = failure("\(scratch.path)/none.img", .exclusive)
        #expect(failure?.reason == .missing)
        #expect(failure?.message == "\(scratch.path)/none.img: there is no such file; check the path in the disk line")
    }

    @Test func pathThroughAFile() throws {
        let path = try scratch.image(byteCount: 512)
        #expect(failure("\(path)/a.img", .readOnly)?.reason == .missing)
    }

    @Test func directory() {
        let failure = failure(scratch.path, .exclusive)
        #expect(failure?.reason == .wrongKind)
        #expect(failure?.message.contains("is a directory") == true)
    }

    @Test(.timeLimit(.minutes(1)))
    func pipeIsRefusedWithoutWaiting() {
        #expect(unsafe mkfifo("\(scratch.path)/pipe", 0o600) == 0)
        #expect(failure("\(scratch.path)/pipe", .readOnly)?.reason == .wrongKind)
        #expect(failure("/dev/null", .exclusive)?.reason == .wrongKind)
    }

    @Test func emptyFile() throws {
        let path = try scratch.image(byteCount: 0)
        let failure = failure(path, .readOnly)
        #expect(failure?.reason == .size)
        let cure = try #require(failure?.message.split(separator: "as with: ").last)
        #expect(unsafe system(String(cure)) == 0)
        #expect(DiskImagesTests.failure(path, .readOnly) == nil, "\(cure)")
    }

    @Test(arguments: [(1000, 512), (511, 512), (512 * 9, 4096)])
    func sizeThatIsNoMultipleOfTheBlock(bytes: Int, block: Int) throws {
        let path = try scratch.image(byteCount: bytes)
        let failure = failure(path, .exclusive, block: block)
        #expect(failure?.reason == .size)
        #expect(failure?.message.contains("\(bytes) bytes") == true)
        let cure = try #require(failure?.message.split(separator: "missing: ").last)
        #expect(unsafe system(String(cure)) == 0)
        #expect(DiskImagesTests.failure(path, .exclusive, block: block) == nil, "\(cure)")
    }

    @Test(arguments: [0, 1, 256, 513, 1 << 20, -512, Int.max])
    func blockThatNoDiskHas(block: Int) throws {
        let path = try scratch.image(byteCount: 1 << 20)
        #expect(failure(path, .exclusive, block: block)?.reason == .size)
    }

    @Test func largeBlocks() throws {
        let path = try scratch.image(byteCount: 1 << 20)
        let options = ImageOptions(access: .exclusive, owner: "test", logicalBlockSize: 4096)
        let image = try RawImage.open(path, options)
        #expect(image.facts.logicalBlockSize == 4096)
        #expect(image.facts.physicalBlockSize == 4096)
    }

    @Test func permission() async throws {
        // Root may do everything: a child that is nobody tries.
        let path = try scratch.image(byteCount: 4096)
        #expect(unsafe chmod(path, 0o600) == 0)
        #expect(unsafe chmod(scratch.path, 0o755) == 0)
        try #require(getuid() == 0, "needs root to become somebody else")
        await #expect(processExitsWith: .success) { [path = path as String] in
            precondition(setgid(65534) == 0 && setuid(65534) == 0)
            let failure = failure(path, .exclusive)
            precondition(failure?.reason == .notPermitted)
            precondition(failure?.message.contains("may not be opened for writing") == true)
        }
    }

    /// Root may write a file that nobody may write; a golden image was made so for a reason.
    @Test func aGoldenImageIsNotForWriting() throws {
        let path = try scratch.image(byteCount: 1 << 20)
        #expect(unsafe chmod(path, 0o444) == 0)
        let failure = failure(path, .exclusive)
        #expect(failure?.reason == .notPermitted)
        #expect(failure?.message.contains("has no write permission") == true)
        #expect(DiskImagesTests.failure(path, .readOnly) == nil)
        #expect(DiskImagesTests.failure(path, .shared) == nil)
        // The cure that Administration.md names.
        #expect(unsafe system("chmod u+w \(path)") == 0)
        #expect(DiskImagesTests.failure(path, .exclusive) == nil)
        #expect(unsafe chmod(path, 0o444) == 0)
        // A guest that has it already keeps it when its worker is replaced.
        let successor = ImageOptions(access: .exclusive, owner: "vbd/7/51712", isTakeover: true)
        #expect(DiskImagesTests.failure(path, successor) == nil)
    }

    @Test func readOnlyImageCannotBeWritten() async throws {
        let path = try scratch.image(byteCount: 1 << 20)
        let image = try RawImage.open(path, reader)
        #expect(image.isReadOnly && !image.facts.canDiscard)
        try await withLoop { loop in
            let waiter = Waiter(loop: loop)
            let pages = try PrivatePages(byteCount: 4096)
            #expect(await waiter.write(image, at: 0, from: pages, count: 4096) == -EBADF)
            let punched = await waiter.result { loop, id in
                image.discard(offset: 0, length: 4096, secure: false, on: loop, target: id, slot: 0)
            }
            #expect(punched == -EBADF)
            #expect(await waiter.read(image, at: 0, into: pages, count: 4096) == 4096)
        }
    }

    @Test func directIOWhereTheFileSystemHasIt() async throws {
        let path = try scratch.image(byteCount: 1 << 20)
        let image = try RawImage.open(path, writer)
        #expect(image.directIO == .used, "ext4, XFS and Btrfs have it")
        #expect(fcntl(image.file.descriptor, F_GETFL) & 0o40000 != 0)
        try await withLoop { loop in
            let pages = try PrivatePages(byteCount: 8192)
            pages.slot(at: 0, byteCount: 512).set32(7, at: 508)
            let waiter = Waiter(loop: loop)
            // One sector, at an odd sector of both memory and disk: the smallest that a guest can ask for.
            #expect(await waiter.write(image, at: 512, from: pages, count: 512) == 512)
            #expect(await waiter.read(image, at: 0, into: pages, count: 4096) == 4096)
            #expect(pages.slot(at: 512, byteCount: 512).u32(508) == 7)
        }
    }

    @Test func directIOCanBeRefused() throws {
        let path = try scratch.image(byteCount: 1 << 20)
        let options = ImageOptions(access: .exclusive, owner: "test", allowsDirectIO: false)
        let buffered = try RawImage.open(path, options)
        #expect(buffered.directIO == .notUsed("it is switched off"))
        let memory = Scratch(in: "/dev/shm")
        let image = try RawImage.open(try memory.image(byteCount: 1 << 20), writer)
        // Linux 6.6 and later accept the flag on tmpfs.
        #expect(image.directIO == .used || image.directIO == .notUsed("tmpfs has none"))
    }

    @Test func discardPunchesHoles() async throws {
        let path = try scratch.image(byteCount: 1 << 20)
        let image = try RawImage.open(path, writer)
        try await withLoop { loop in
            let pages = try PrivatePages(byteCount: 1 << 20)
            for page in 0..<256 { pages.slot(at: page * 4096, byteCount: 4096).set8(1, at: 5) }
            let waiter = Waiter(loop: loop)
            #expect(await waiter.write(image, at: 0, from: pages, count: 1 << 20) == 1 << 20)
            let before = allocatedBytes(image.file)
            let punched = await waiter.result { loop, id in
                image.discard(offset: 4096, length: 1 << 19, secure: false, on: loop, target: id, slot: 0)
            }
            #expect(punched == 0)
            #expect(before - allocatedBytes(image.file) == 1 << 19)
            #expect(await waiter.read(image, at: 0, into: pages, count: 1 << 20) == 1 << 20)
            #expect(pages.slot(at: 0, byteCount: 4096).u8(5) == 1)
            #expect(pages.slot(at: 4096, byteCount: 4096).u8(5) == 0)
            #expect(pages.slot(at: (1 << 19) + 4096, byteCount: 4096).u8(5) == 1)
            let erased = await waiter.result { loop, id in
                image.discard(offset: 0, length: 4096, secure: true, on: loop, target: id, slot: 0)
            }
            #expect(erased == -EOPNOTSUPP)
        }
    }

    @Test func sizeIsMeasuredAgain() async throws {
        let path = try scratch.image(byteCount: 1 << 20)
        let image = try RawImage.open(path, writer)
        #expect(unsafe truncate(path, 2 << 20) == 0)
        #expect(image.facts.byteCount == 1 << 20)
        let grown = try image.measuredAgain()
        #expect(grown.facts.byteCount == 2 << 20)
        #expect(grown.file === image.file && grown.directIO == image.directIO)
        try await withLoop { loop in
            #expect(unsafe truncate(path, 1 << 19) == 0)
            let shrunk = try await grown.measuredAgain(on: loop)
            #expect(shrunk.facts.byteCount == 1 << 19)
        }
        #expect(unsafe truncate(path, 1000) == 0)
        #expect(throws: ImageFailure.self) { () throws in _ = try grown.measuredAgain() }
    }

    @Test func truncatedUnderUs() async throws {
        let path = try scratch.image(byteCount: 1 << 20)
        let image = try RawImage.open(path, writer)
        #expect(unsafe truncate(path, 8192) == 0)
        try await withLoop { loop in
            let pages = try PrivatePages(byteCount: 16384)
            let waiter = Waiter(loop: loop)
            let short = await waiter.read(image, at: 4096, into: pages, count: 16384)
            #expect(short == 4096)
            #expect(await waiter.read(image, at: 65536, into: pages, count: 4096) == 0)
            let text = image.trouble("read", offset: 4096, result: short)
            let end = "ended after 4096 bytes: the image is shorter than the disk; was it truncated?"
            #expect(text == "\(path): read at byte 4096 \(end)")
            // Told once for each cause, wherever it strikes.
            #expect(image.newTrouble("write", offset: 0, result: -ENOSPC)?.contains("is full") ?? false)
            #expect(image.newTrouble("write", offset: 512, result: -ENOSPC) == nil)
            #expect(image.newTrouble("write", offset: 512, result: -EIO)?.contains("byte 512") ?? false)
        }
    }
}

func allocatedBytes(_ file: OpenFile) -> Int {
    var status = stat()
    _ = unsafe fstat(file.descriptor, &status)
    return Int(status.st_blocks) * 512
}
