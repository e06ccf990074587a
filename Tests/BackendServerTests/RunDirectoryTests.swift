// The run directory: shut to others however it was made, and what is removed of a domain.

import BackendCore
import HostIO
import SystemPackage
import Testing
import XenWire

@testable import BackendServer

#if canImport(Glibc)
    import Glibc
#endif

private func mode(_ path: FilePath) throws -> mode_t {
    var status = stat()
    guard unsafe stat(path.string, &status) == 0 else { throw Errno(rawValue: errno) }
    return status.st_mode & 0o7777
}

@Suite struct RunDirectoryTests {
    private let run = RunDirectory(FilePath("/tmp/xenback-run-\(UInt64.random(in: 0 ... .max))"))

    @Test func aDirectoryMadeByHandIsShut() throws {
        for path in [run.path, run.journals] {
            #expect(unsafe mkdir(path.string, 0o755) == 0 && chmod(path.string, 0o755) == 0)
        }
        try run.prepare()
        #expect(try mode(run.path) == 0o700)
        #expect(try mode(run.journals) == 0o700)
        try run.prepare()
    }

    /// As root only: whoever owns the directory reads what guests write.
    @Test func somebodyElsesDirectoryIsRefused() throws {
        try run.prepare()
        #expect(unsafe chown(run.journals.string, 1, 1) == 0)
        #expect(throws: Errno.notPermitted) { try run.prepare() }
    }

    @Test func aDomainThatIsGoneHoldsNoPages() throws {
        try run.prepare()
        let (gone, other) = (try #require(DomainID(3)), try #require(DomainID(4)))
        let shares = try GrantShares(run.grantShares)
        shares.set(100, of: gone)
        shares.set(50, of: other)
        try run.removeFiles(of: gone)
        #expect(shares[gone] == 0 && shares.total == 50)
        #expect(try run.domains().isEmpty)
    }
}
