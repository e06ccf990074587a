// What tests of all backends need: a condition that comes true in time, and a folder of their own.

internal import HostIO
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

extension FilePath {
    /// A new folder, for the one who asks.
    public static func temporary() throws -> FilePath {
        let path = FilePath("/tmp/xenback-test-\(UInt64.random(in: 0 ... .max))")
        try Files.makeDirectory(path, permissions: [.ownerReadWriteExecute])
        return path
    }
}
