// A simulated Xen host with a run directory of its own, for the tests of this target.

import BackendCore
import HostIO
import Hypervisor
import Logging
import SimulatedHypervisor
import SystemPackage
import TestSupport
import Testing
import XenWire

@testable import BackendServer
@testable import ControlProtocol

#if canImport(Glibc)
    import Glibc
#endif

/// One test's host: machine, dom0's view of it, a loop, a run directory that goes with it.
final class SimulatedHost: Sendable {
    let machine: SimulatedMachine
    let dom0: SimulatedHypervisor
    let loop: EventLoop
    let directory: FilePath
    var run: RunDirectory { RunDirectory(directory.appending("run")) }

    init() throws {
        machine = try SimulatedMachine()
        dom0 = try machine.hypervisor(for: .initial)
        loop = try EventLoop(name: "test", entries: 64)
        directory = FilePath("/tmp/xenback-test-\(getpid())-\(UInt32.random(in: 0...UInt32.max))")
        try Files.makeDirectory(directory, permissions: .ownerReadWriteExecute)
        try run.prepare()
    }

    deinit {
        for name in (try? Files.names(in: run.journals)) ?? [] { try? Files.remove(run.journals.appending(name)) }
        for name in (try? Files.names(in: run.path)) ?? [] { try? Files.remove(run.path.appending(name)) }
        for folder in [directory.appending("usb"), directory] {
            for name in (try? Files.names(in: folder)) ?? [] { try? Files.remove(folder.appending(name)) }
        }
        for path in [run.journals, run.path, directory.appending("usb"), directory] { _ = unsafe rmdir(path.string) }
        loop.shutDown()
    }

    var log: Logger {
        let level: Logger.Level = unsafe getenv("TEST_LOG") == nil ? .critical : .debug
        return Logger(label: "test") { _ in LineLog(level: level, forJournal: false) }
    }

    /// Writes a disk's nodes as the toolstack does.
    @discardableResult
    func attach(_ domain: UInt16, _ index: UInt32 = 51712, target: String = "/none") async throws -> DevicePath {
        let disk = DiskSpecification(
            domain: try #require(DomainID(domain)),
            kind: .vbd3,
            index: index,
            node: "xvd\(index)",
            target: target,
            script: Broker.script
        )
        let nodes = DeviceNodes(own: .initial, path: disk.path)
        let written = try await dom0.store.transaction { (store) throws(HypervisorFailure) in
            try nodes.write(disk, to: store)
        }
        #expect(written)
        return disk.path
    }

    func state(_ path: DevicePath) async throws -> XenbusState? {
        try await dom0.store.read("\(path)/state").flatMap { XenbusState(text: $0) }
    }
}

extension Broker {
    /// As a client's call, answered on the broker's loop.
    nonisolated func call<Verb: ControlVerb>(_ verb: Verb) async throws -> Verb.Reply {
        let bytes = try await Task(executorPreference: loop) {
            let call = try ControlCall(message: ControlMessage.call(verb).dropLast())
            return await BrokerVerbs(self).dispatch().answer(call)
        }.value
        return try ControlMessage.decodeReply(to: Verb.self, from: try #require(bytes).dropLast())
    }
}

/// Waits until `condition` holds; records an issue if it does not within `limit`.
/// - Returns: how long it took.
@discardableResult
func eventually(
    _ what: Comment,
    within limit: Duration = .seconds(10),
    sourceLocation: SourceLocation = #_sourceLocation,
    _ condition: () async throws -> Bool
) async throws -> Duration {
    let begun = ContinuousClock.now
    if try await !eventually(within: limit, condition) { Issue.record(what, sourceLocation: sourceLocation) }
    return ContinuousClock.now - begun
}
