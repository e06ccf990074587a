// Listening sockets in the place of others: of the living, of the dead, and of those that only seem to live.

import HostIO
import SystemPackage
import Testing

@Suite struct UnixSocketTests {
    private func withPath(_ body: (FilePath) throws -> Void) throws {
        let path = FilePath("/tmp/xenback-socket-\(UInt64.random(in: 0 ... .max))")
        defer { try? Files.remove(path) }
        try body(path)
    }

    @Test func theSocketOfTheDeadIsReplaced() throws {
        try withPath { path in
            try UnixSocket.listen(at: path).close()
            try UnixSocket.listen(at: path).close()
        }
    }

    /// Whoever has no lock must not take a socket from somebody who listens; whoever has one may, though the kernel has not
    /// yet closed what a dead process watched.
    @Test func aSocketThatIsOpenStillIsReplacedByItsOwner() throws {
        try withPath { path in
            let old = try UnixSocket.listen(at: path)
            #expect(throws: Errno.addressInUse) { _ = try UnixSocket.listen(at: path) }
            let new = try UnixSocket.listen(at: path, isOurs: true)
            try UnixSocket.connect(to: path).close()
            let caller = try UnixSocket.accept(from: new)
            #expect(caller != nil)
            try caller?.close()
            try old.close()
            try new.close()
        }
    }

    @Test func whatIsNoSocketStays() throws {
        try withPath { path in
            try FileDescriptor.open(path, .writeOnly, options: .create, permissions: .ownerReadWrite).close()
            for isOurs in [false, true] {
                #expect(throws: Errno.fileExists) { _ = try UnixSocket.listen(at: path, isOurs: isOurs) }
            }
        }
    }

    /// A peer that takes a message bit by bit gets all of it, one that takes nothing is not waited for longer than was said.
    @Test func aSlowPeerGetsAllAndASilentOneIsGivenUp() async throws {
        let loop = try EventLoop(name: "socket")
        let path = FilePath("/tmp/xenback-socket-\(UInt64.random(in: 0 ... .max))")
        let server = try UnixSocket.listen(at: path)
        let client = try UnixSocket.connect(to: path)
        let peer = try #require(try UnixSocket.accept(from: server))
        let message = (0..<3_000_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        let sent = Task(executorPreference: loop) {
            try await loop.send(message, to: peer, within: .seconds(60))
        }
        var received: [UInt8] = []
        while received.count < message.count {
            guard try UnixSocket.wait(for: client, milliseconds: 60_000) else { break }
            if let bytes = try UnixSocket.receive(from: client) { received += bytes }
        }
        try await sent.value
        #expect(received == message)
        await #expect(throws: Errno.timedOut) { try await loop.send(message, to: peer, within: .milliseconds(1)) }
        try client.close()
        await #expect(throws: Errno.brokenPipe) { try await loop.send(message, to: peer, within: .seconds(60)) }
        try peer.close()
        try server.close()
        try Files.remove(path)
        loop.shutDown()
    }
}
