// A target that remembers what it was told, and ways to wait for it.

import Glibc
import HostIO
import SharedRing
import Synchronization
import SystemPackage
import TestSupport
import Testing

/// Remembers each run of completions.
final class Recorder: CompletionTarget {
    struct State {
        var runs: [[Completion]] = []
        var wasOffLoop = false
    }
    let loop: EventLoop
    let state = Mutex(State())
    /// Its own name, for those that start something from `onRun`.
    let target = Mutex<TargetID?>(nil)
    let onRun: @Sendable (Recorder, [Completion]) -> Void

    init(loop: EventLoop, onRun: @escaping @Sendable (Recorder, [Completion]) -> Void = { _, _ in }) {
        self.loop = loop
        self.onRun = onRun
    }

    func completed(_ completions: borrowing CompletionBatch) {
        let run = (0..<completions.count).map { completions[$0] }
        let isOnLoop = loop.isOnLoop
        state.withLock {
            $0.runs.append(run)
            if !isOnLoop { $0.wasOffLoop = true }
        }
        onRun(self, run)
    }

    var all: [Completion] { state.withLock { $0.runs.flatMap { $0 } } }
    var runCount: Int { state.withLock { $0.runs.count } }

    /// Waits until `count` completions have come, at most twenty seconds.
    func wait(for count: Int) async throws {
        try await until { self.all.count >= count }
    }
}

/// Runs a test with a loop that is shut down at its end.
func withLoop(entries: UInt32 = 256, _ body: (EventLoop) async throws -> Void) async throws {
    let loop = try EventLoop(name: "test", entries: entries)
    defer { loop.shutDown() }
    try await body(loop)
}

/// A new, empty file that is deleted already.
func scratchFile(flags: CInt = O_RDWR) throws -> OpenFile {
    var template = Array("/tmp/hostio-XXXXXX".utf8CString)
    let descriptor = unsafe mkstemp(&template)
    #expect(descriptor >= 0)
    let path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    let file = try OpenFile(path: path, flags: flags)
    close(descriptor)
    unsafe unlink(path)
    return file
}
