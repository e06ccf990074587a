// The two ways to the host: each test of a card is run on both.

internal import HostNetwork
internal import SimulatedHost
internal import Testing

/// How packets get to the host and back in a test.
enum HostWay: CaseIterable, Sendable {
    case plain, vhost

    /// That of the test that runs.
    @TaskLocal static var current = HostWay.plain

    /// Bytes before a frame in the guest's first page.
    var lead: Int { self == .vhost ? PacketQueue.headerBytes : 0 }
}

/// Runs each test of a suite twice: with packets by system calls, and by a thread of the (simulated) kernel.
struct BothWays: SuiteTrait, TestScoping {
    var isRecursive: Bool { true }

    @concurrent
    func provideScope(
        for test: Test,
        testCase: Test.Case?,
        performing function: @Sendable @concurrent () async throws -> Void
    ) async throws {
        for way in HostWay.allCases {
            try await HostWay.$current.withValue(way) { try await function() }
        }
    }
}

extension Trait where Self == BothWays {
    static var bothWays: BothWays { BothWays() }
}
