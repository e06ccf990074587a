// The two ways to the host: the tests of a card can be run on either.

internal import Glibc
internal import HostNetwork

/// How packets get to the host and back in a test.
enum HostWay: Sendable {
    case plain, vhost

    /// That of the test that runs. `XENBACK_TEST_WAY=vhost` runs all tests of a card with packets by a thread of the
    /// (simulated) kernel instead of system calls.
    @TaskLocal static var current = ofThisRun

    private static let ofThisRun: HostWay =
        if let word = unsafe getenv("XENBACK_TEST_WAY"), unsafe String(cString: word) == "vhost" { .vhost } else {
            .plain
        }

    /// Bytes before a frame in the guest's first page.
    var lead: Int { self == .vhost ? PacketQueue.headerBytes : 0 }
}
