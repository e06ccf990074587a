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
}
