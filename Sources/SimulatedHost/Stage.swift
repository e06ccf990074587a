// What is set up for a demonstration or a measurement, and taken down in any case.

internal import Glibc
internal import HostIO
public import SystemPackage

/// A simulated host with everything that runs on it.
public protocol Stage: AnyObject {
    /// Ends and removes all of it.
    func strike() async
}

extension Stage {
    /// Runs `body`, then strikes the stage, also after an error.
    public func play<Result>(_ body: (Self) async throws -> Result) async throws -> Result {
        do {
            let result = try await body(self)
            await strike()
            return result
        } catch {
            await strike()
            throw error
        }
    }
}

/// Removes a directory with all in it.
public func removeTree(_ path: FilePath) {
    for name in (try? Files.names(in: path)) ?? [] { removeTree(path.appending(name)) }
    // SAFETY: the text lives for the call.
    _ = unsafe path.withPlatformString { unsafe Glibc.remove($0) }
}
