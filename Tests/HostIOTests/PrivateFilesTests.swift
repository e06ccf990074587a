// Directories and locks that are ours alone, whoever made them and with whatever permissions.

import CLinux
import Glibc
import HostIO
import SystemPackage
import Testing

private func mode(_ path: FilePath) throws -> mode_t {
    var status = stat()
    guard unsafe stat(path.string, &status) == 0 else { throw Errno(rawValue: errno) }
    return status.st_mode & 0o7777
}

@Suite struct PrivateFilesTests {
    private let folder = FilePath("/tmp/xenback-private-\(UInt64.random(in: 0 ... .max))")

    init() throws { try Files.makeDirectory(folder, permissions: .ownerReadWriteExecute) }

    @Test func aDirectoryMadeByHandIsShut() throws {
        #expect(unsafe chmod(folder.string, 0o755) == 0)
        try Files.keepPrivate(folder)
        #expect(try mode(folder) == 0o700)
    }

    @Test func aLinkOrAFileIsNoDirectory() throws {
        let link = folder.appending("link")
        #expect(unsafe symlink("/", link.string) == 0)
        #expect(throws: Errno.self) { try Files.keepPrivate(link) }
        let file = folder.appending("file")
        try Files.make(file, "", permissions: .ownerReadWrite)
        #expect(throws: Errno.notDirectory) { try Files.keepPrivate(file) }
    }

    /// As root only: somebody else's is refused, and stays as it is.
    @Test func whatIsSomebodyElsesIsRefused() throws {
        let lock = folder.appending("lock")
        try Files.make(lock, "", permissions: .ownerReadWrite)
        for path in [folder, lock] { #expect(unsafe chown(path.string, 1, 1) == 0) }
        #expect(throws: Errno.notPermitted) { try Files.keepPrivate(folder) }
        #expect(throws: Errno.notPermitted) { try LockFile(taking: lock, text: "x") }
        #expect(try Files.contents(of: lock, limit: 10).isEmpty)
    }

    @Test func aLockFileIsReadByItsOwnerAlone() throws {
        let lock = folder.appending("lock")
        try Files.make(lock, "", permissions: [.ownerReadWrite, .groupRead, .otherRead])
        #expect(unsafe chmod(lock.string, 0o644) == 0)
        let held = try LockFile(taking: lock, text: "x")
        #expect(try mode(lock) == 0o600)
        withExtendedLifetime(held) {}
        let other = folder.appending("other")
        let second = try LockFile(taking: other, text: "x")
        #expect(try mode(other) == 0o600)
        withExtendedLifetime(second) {}
    }
}
