// One simulated machine with a guest, its toolstack and its workers: what a test of any device class begins with.

internal import BackendCore
internal import Foundation
public import Hypervisor
public import SimulatedHost
public import SimulatedHypervisor
public import SystemPackage
public import XenWire

/// The guest of most tests.
public let guestDomain = DomainID(7)!

/// A machine with `guestDomain`. Made for one test.
public final class GuestBed: Sendable {
    public let machine: SimulatedMachine
    public let host: SimulatedHypervisor
    public let guest: SimulatedHypervisor
    public let toolstack: SimulatedToolstack
    public let workers: Workers
    /// What the workers say.
    public let logs = LogLines()

    /// The run directory.
    public var folder: FilePath { workers.folder }
    /// A folder in memory; whoever uses it makes it.
    public var memoryFolder: FilePath { FilePath("/dev/shm").appending(folder.lastComponent ?? "xenback-test") }

    /// - Parameter seen: the host as the workers see it.
    public init(_ seen: (SimulatedHypervisor) throws -> any Hypervisor = { $0 }) throws {
        machine = try SimulatedMachine()
        try machine.createDomain(guestDomain)
        host = try machine.hypervisor(for: .initial)
        guest = try machine.hypervisor(for: guestDomain)
        toolstack = SimulatedToolstack(host)
        workers = try Workers(seen(host), of: guestDomain, logger: logs.logger)
    }

    deinit { try? FileManager.default.removeItem(atPath: memoryFolder.string) }

    public func read(_ node: String) async throws -> String? { try await host.store.read(node) }
    public func write(_ node: String, _ value: String) async throws { try await host.store.write(node, value) }
}

/// A test of one device, the victim. What can be asked of it and done to it is the same for all classes.
public protocol DeviceScene: Sendable {
    var bed: GuestBed { get }
    var victim: DevicePath { get }
}

/// A condition of a scene that did not come true.
public struct SceneFailure: Error, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}

extension DeviceScene {
    public var machine: SimulatedMachine { bed.machine }
    public var host: SimulatedHypervisor { bed.host }
    public var guest: SimulatedHypervisor { bed.guest }
    public var toolstack: SimulatedToolstack { bed.toolstack }
    public var workers: Workers { bed.workers }

    /// A counter of the victim's report; the largest number if there is none of this name.
    public func counter(_ name: String) async throws -> UInt64 {
        guard let backend = workers.backend(at: victim) else { throw SceneFailure("no backend for \(victim)") }
        return await backend.report().counters.first { $0.name == name }?.value ?? .max
    }

    public func backendKey(_ key: String) async throws -> String? { try await bed.read(victim.key(key)) }
    public func writeBackendKey(_ key: String, _ value: String) async throws {
        try await bed.write(victim.key(key), value)
    }

    /// What the toolstack and people read when a device cannot go on.
    public func errorNode() async throws -> String? { try await bed.read(victim.errorNode) }

    /// The backend gives up on the connection and says why.
    public func isClosed(saying text: String) async throws {
        let wasClosed = try await eventually {
            let state = try await self.backendKey(BusKeys.state)
            return state == XenbusState.closing.text || state == XenbusState.closed.text
        }
        let error = try await errorNode() ?? ""
        guard wasClosed, error.contains(text) else {
            throw SceneFailure("the backend \(wasClosed ? "closed" : "did not close") saying '\(error)', not '\(text)'")
        }
    }
}
