// The client against a real socket: answers in pieces, no answer, nobody there, and peer credentials.

import Foundation
import HostIO
import SystemPackage
import Testing

@testable import ControlProtocol

@Suite struct ControlClientTests {
    /// A daemon that takes one connection and does `body` with it on a thread of its own, which also cleans up.
    private struct OneConnection {
        let path = FilePath("/tmp/control-\(UUID().uuidString.prefix(8))")

        init(_ body: @escaping @Sendable (FileDescriptor) throws -> Void) throws {
            let listener = try UnixSocket.listen(at: path)
            Thread.detachNewThread { [path] in
                defer {
                    try? listener.close()
                    try? FileManager.default.removeItem(atPath: path.string)
                }
                // A signal (some other test's child ended) is no reason to stop waiting.
                let deadline = ContinuousClock.now + .seconds(10)
                while (try? UnixSocket.wait(for: listener, milliseconds: 100)) != true, ContinuousClock.now < deadline {
                }
                guard let socket = try? UnixSocket.accept(from: listener, nonBlocking: false) else { return }
                try? body(socket)
                try? socket.close()
            }
        }
    }

    private static func answer(_ bytes: [UInt8], on socket: FileDescriptor) throws {
        for byte in bytes { _ = try UnixSocket.send([byte], to: socket) }
    }

    private static func failure<Verb: ControlVerb>(
        _ verb: Verb,
        at path: FilePath,
        timeout: Duration = .seconds(10)
    ) -> ControlClientError? {
        do throws(ControlClientError) {
            var client = try ControlClient(path: path.string)
            _ = try client.call(verb, timeout: timeout)
            return nil
        } catch {
            return error
        }
    }

    @Test func twoCallsOnOneConnection() throws {
        let server = try OneConnection { socket in
            #expect(try UnixSocket.peer(of: socket).process == getpid())
            #expect(try UnixSocket.peer(of: socket).isRootOrOwner)
            for _ in 0..<2 {
                _ = try UnixSocket.receive(from: socket)
                try Self.answer(ControlMessage.reply(GetVersion.Reply(version: "9", process: 1)), on: socket)
            }
        }
        var client = try ControlClient(path: server.path.string)
        for _ in 0..<2 { #expect(try client.call(GetVersion(), timeout: .seconds(10)).version == "9") }
    }

    @Test func nobodyThere() throws {
        let nowhere = FilePath("/tmp/control-nowhere-\(UUID().uuidString)")
        #expect(Self.failure(Ping(), at: nowhere) == .notRunning(socket: nowhere.string))
        // A socket that its owner left behind.
        let listener = try UnixSocket.listen(at: nowhere)
        try listener.close()
        #expect(Self.failure(Ping(), at: nowhere) == .notRunning(socket: nowhere.string))
        // It is taken over, and somebody who listens is not.
        let second = try UnixSocket.listen(at: nowhere)
        #expect(throws: Errno.addressInUse) { try UnixSocket.listen(at: nowhere) }
        try second.close()
        try FileManager.default.removeItem(atPath: nowhere.string)
    }

    @Test func aFileIsNoStaleSocket() throws {
        let file = FilePath("/tmp/control-file-\(UUID().uuidString)")
        try Data("precious".utf8).write(to: URL(fileURLWithPath: file.string))
        #expect(throws: Errno.fileExists) { try UnixSocket.listen(at: file) }
        #expect(FileManager.default.fileExists(atPath: file.string))
        try FileManager.default.removeItem(atPath: file.string)
        #expect(throws: Errno.fileNameTooLong) {
            try UnixSocket.listen(at: FilePath("/tmp/" + String(repeating: "x", count: 200)))
        }
    }

    @Test func theSocketIsForItsOwnerOnly() throws {
        let path = FilePath("/tmp/control-mode-\(UUID().uuidString.prefix(8))")
        let listener = try UnixSocket.listen(at: path)
        let attributes = try FileManager.default.attributesOfItem(atPath: path.string)
        try listener.close()
        try FileManager.default.removeItem(atPath: path.string)
        #expect((attributes[.posixPermissions] as? NSNumber)?.intValue == 0o600)
    }

    @Test func daemonsThatFailUs() throws {
        let refusing = try OneConnection { socket in
            _ = try UnixSocket.receive(from: socket)
            try Self.answer(ControlMessage.reply(ControlError.noSuchDomain("x")), on: socket)
        }
        #expect(Self.failure(Ping(), at: refusing.path) == .refused(.noSuchDomain("x")))
        let denying = try OneConnection { socket in
            try Self.answer(ControlMessage.reply(ControlError.permissionDenied), on: socket)
        }
        #expect(Self.failure(Ping(), at: denying.path) == .permissionDenied(socket: denying.path.string))
        let dying = try OneConnection { socket in
            _ = try UnixSocket.receive(from: socket)
            try Self.answer(Array("{\"para".utf8), on: socket)
        }
        #expect(Self.failure(Ping(), at: dying.path) == .connectionLost)
        let silent = try OneConnection { _ in Thread.sleep(forTimeInterval: 2) }
        #expect(Self.failure(Ping(), at: silent.path, timeout: .milliseconds(50)) == .timedOut(.milliseconds(50)))
        let babbling = try OneConnection { socket in
            _ = try UnixSocket.receive(from: socket)
            try Self.answer(Array("hello\0".utf8), on: socket)
        }
        guard case .refused(.malformedMessage) = Self.failure(Ping(), at: babbling.path) else {
            Issue.record("not malformed")
            return
        }
    }
}
