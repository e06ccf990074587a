// Ports read and unmasked through a loop's ring, with a socket in the place of /dev/xen/evtchn.

import Glibc
import HostIO
import Synchronization
import Testing
import XenWire

@testable import BackendCore

/// A set of ports whose kernel is the test: what it sends is pending, what it receives was unmasked.
private final class Ports: CompletionTarget {
    let loop: EventLoop
    private let stream = Mutex<PortStream?>(nil)
    let taken = Mutex<[UInt32]>([])

    init(_ loop: EventLoop, _ descriptor: CInt) async {
        self.loop = loop
        await on {
            let target = loop.attach(self)
            self.stream.withLock { $0 = PortStream(descriptor, loop: loop, target: target) }
        }
    }

    func completed(_ completions: borrowing CompletionBatch) {
        guard completions[0].result > 0, let stream = stream.withLock({ $0 }) else { return }
        stream.take(completions[0].result) { port in taken.withLock { $0.append(port.rawValue) } }
    }

    func on<Result: Sendable>(_ body: @escaping @Sendable () -> Result) async -> Result {
        await withCheckedContinuation { continuation in loop.perform { continuation.resume(returning: body()) } }
    }

    /// How many of these went through the ring.
    func unmask(_ ports: [UInt32]) async -> Int {
        await on { ports.filter { self.stream.withLock { $0 }?.unmask(EventChannelPort($0)) ?? false }.count }
    }
}

struct PortStreamTests {
    private func withPorts(_ body: (Ports, OpenFile) async throws -> Void) async throws {
        var ends: [CInt] = [-1, -1]
        let type = CInt(SOCK_SEQPACKET.rawValue) | CInt(SOCK_NONBLOCK.rawValue) | CInt(SOCK_CLOEXEC.rawValue)
        try #require(unsafe socketpair(AF_UNIX, type, 0, &ends) == 0)
        let (device, kernel) = (OpenFile(adopting: ends[0]), OpenFile(adopting: ends[1]))
        let loop = try EventLoop(name: "ports")
        let ports = await Ports(loop, device.descriptor)
        try await body(ports, kernel)
        // Ends although the read still waits.
        loop.shutDown()
    }

    /// What was unmasked since the last call, once `count` ports were.
    private func unmasked(_ kernel: OpenFile, _ count: Int) async throws -> [UInt32] {
        var found: [UInt32] = []
        for _ in 0..<5000 where found.count < count {
            var port: UInt32 = 0
            while unsafe read(kernel.descriptor, &port, 4) == 4 { found.append(port) }
            try await Task.sleep(for: .milliseconds(2))
        }
        return found
    }

    private func send(_ ports: [UInt32], _ kernel: OpenFile) -> Bool {
        unsafe write(kernel.descriptor, ports, ports.count * 4) == ports.count * 4
    }

    @Test func portsComeAndAreUnmaskedInTheirOrder() async throws {
        try await withPorts { ports, kernel in
            for round in 0..<200 as Range<UInt32> {
                let sent = (0...round % 64).map { round * 100 + $0 }
                #expect(send(sent, kernel))
                while ports.taken.withLock({ $0.count < sent.count }) { try await Task.sleep(for: .milliseconds(1)) }
                let taken = ports.taken.withLock { taken in
                    defer { taken.removeAll() }
                    return taken
                }
                #expect(taken == sent)
                #expect(await ports.unmask(taken) == taken.count)
                #expect(try await unmasked(kernel, taken.count) == taken)
            }
        }
    }

    /// No write is lost behind one that has its place: who asks for too many is told.
    @Test func moreThanFitAreRefused() async throws {
        try await withPorts { ports, kernel in
            let wanted = Array(1...UInt32(PortStream.capacity + 10))
            #expect(await ports.unmask(wanted) == PortStream.capacity)
            #expect(try await unmasked(kernel, PortStream.capacity) == Array(wanted.prefix(PortStream.capacity)))
            // The next ports make room again.
            #expect(send([7], kernel))
            while ports.taken.withLock({ $0.isEmpty }) { try await Task.sleep(for: .milliseconds(1)) }
            #expect(await ports.unmask([7]) == 1)
            #expect(try await unmasked(kernel, 1) == [7])
        }
    }
}
