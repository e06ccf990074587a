// Files to test on, and a target that collects results.

import Glibc
import HostIO
import SharedRing
import Synchronization
import Testing

@testable import DiskImages

/// A directory that is deleted with the last reference.
final class Scratch: Sendable {
    let path: String

    init(in parent: String = "/var/tmp") {
        var template = Array("\(parent)/images-XXXXXX".utf8CString)
        #expect(unsafe mkdtemp(&template) != nil)
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit {
        for name in ["disk.img", "disk.img.go", "pipe", "answer"] { _ = unsafe remove("\(path)/\(name)") }
        _ = unsafe rmdir(path)
    }

    /// Makes the file and returns its path.
    func image(byteCount: Int) throws -> String {
        let name = "\(path)/disk.img"
        let file = try OpenFile(path: name, flags: O_RDWR | O_CREAT)
        #expect(ftruncate(file.descriptor, byteCount) == 0)
        return name
    }
}

/// Waits for results on a loop, one at a time.
final class Waiter: CompletionTarget, @unchecked Sendable {
    let loop: EventLoop
    private let results = Mutex<[Int32]>([])

    init(loop: EventLoop) { self.loop = loop }

    func completed(_ completions: borrowing CompletionBatch) {
        for position in 0..<completions.count {
            let result = completions[position].result
            results.withLock { $0.append(result) }
        }
    }

    /// Starts one operation on the loop and waits for its result.
    func result(of start: @escaping @Sendable (EventLoop, TargetID) -> Void) async -> Int32 {
        results.withLock { $0 = [] }
        let loop = loop
        loop.perform { start(loop, loop.attach(self)) }
        while true {
            if let result = results.withLock({ $0.first }) { return result }
            await loop.sleep(for: .milliseconds(1))
        }
    }

    func read(_ image: RawImage, at offset: UInt64, into pages: PrivatePages, count: Int) async -> Int32 {
        await result { loop, id in
            let runs = IORuns(offset: 0, byteCount: count)
            loop.read(image.file, at: offset, into: pages, runs: runs, target: id, slot: 0)
        }
    }

    func write(_ image: RawImage, at offset: UInt64, from pages: PrivatePages, count: Int) async -> Int32 {
        await result { loop, id in
            let runs = IORuns(offset: 0, byteCount: count)
            loop.write(image.file, at: offset, from: pages, runs: runs, target: id, slot: 0)
        }
    }
}

func withLoop(_ body: (EventLoop) async throws -> Void) async throws {
    let loop = try EventLoop(name: "test")
    defer { loop.shutDown() }
    try await body(loop)
}

/// The failure of opening, which must fail.
func failure(_ path: String, _ access: ImageOptions.Access, block: Int? = nil) -> ImageFailure? {
    failure(path, ImageOptions(access: access, owner: "test", logicalBlockSize: block))
}

func failure(_ path: String, _ options: ImageOptions) -> ImageFailure? {
    do throws(ImageFailure) {
        _ = try RawImage.open(path, options)
        return nil
    } catch { return error }
}

let writer = ImageOptions(access: .exclusive, owner: "vbd/7/51712")
let reader = ImageOptions(access: .readOnly, owner: "vbd/7/51728")
