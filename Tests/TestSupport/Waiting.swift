// What tests of all backends need: a condition that comes true in time, and a folder of their own.

public import HostIO
public import SystemPackage

/// Polls until `condition` holds, at most `limit`.
public func eventually(
    within limit: Duration = .seconds(20),
    _ condition: () async throws -> Bool
) async rethrows -> Bool {
    let end = ContinuousClock.now + limit
    while ContinuousClock.now < end {
        if try await condition() { return true }
        try? await Task.sleep(for: .milliseconds(1))
    }
    return try await condition()
}

/// A condition that did not come true in time.
public struct TimedOut: Error {
    public init() {}
}

/// Polls until `condition` holds.
/// - Throws: `TimedOut` if it does not within `limit`.
public func until(within limit: Duration = .seconds(20), _ condition: () async throws -> Bool) async throws {
    guard try await eventually(within: limit, condition) else { throw TimedOut() }
}

extension FilePath {
    /// A new folder, for the one who asks.
    public static func temporary() throws -> FilePath {
        let path = FilePath("/tmp/xenback-test-\(UInt64.random(in: 0 ... .max))")
        try Files.makeDirectory(path, permissions: [.ownerReadWriteExecute])
        return path
    }
}

extension EventLoop {
    /// Runs `body` on the loop and waits for its result.
    public func on<Value: Sendable>(_ body: @escaping @Sendable () -> Value) async -> Value {
        await withCheckedContinuation { continuation in perform { continuation.resume(returning: body()) } }
    }
}
