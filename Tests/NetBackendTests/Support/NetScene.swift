// Two network cards on one simulated worker: the one that is tried, and the bystander that must not notice.

internal import BackendCore
internal import Foundation
internal import FrontendDrivers
internal import HostIO
internal import HostNetwork
internal import Hypervisor
internal import Logging
internal import SharedRing
internal import SimulatedHypervisor
internal import Synchronization
internal import SystemPackage
internal import Testing
internal import XenWire

@testable internal import NetBackend

let guestDomain = DomainID(7)!
let guestAddress = MACAddress(0x00, 0x16, 0x3E, 0, 0, 1)
let otherAddress = MACAddress(0x00, 0x16, 0x3E, 0, 0, 2)
let hostAddress = MACAddress(0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF)

/// One machine with two cards, on one data loop as far as their first queues go.
final class NetScene: Sendable {
    static let victimPath = DevicePath(kind: .vif, domain: guestDomain, index: 0)
    static let bystanderPath = DevicePath(kind: .vif, domain: guestDomain, index: 2)
    /// Pages of the bystander that are mapped.
    static let bystanderRings = 2

    let machine: SimulatedMachine
    let guest: SimulatedHypervisor
    let wires = WireHost()
    let toolstack: SimulatedToolstack
    let card: SimulatedToolstack.NetworkCard
    let frontend: NetworkFrontend
    let bystander: NetworkFrontend
    let offer: NetOffer
    private let host: SimulatedHypervisor
    private let folder: FilePath
    private let loop: EventLoop
    private let stall: StallTimes
    private let serving: Mutex<Serving>

    private struct Serving: Sendable {
        var environment: WorkerEnvironment
        var retired: [WorkerEnvironment] = []
        var backends: [DevicePath: NetBackend] = [:]
        var lives: [DevicePath: Task<Void, Never>] = [:]
    }

    /// - Parameters:
    ///   - rate: the victim's.
    ///   - keys: the toolstack's for the victim, beside the usual ones.
    ///   - refusal: why the host cannot make the victim's interface.
    ///   - connects: whether the victim's usual frontend connects.
    init(
        _ options: NetworkFrontendOptions = .init(),
        rate: String? = nil,
        keys: [(String, String)] = [],
        stall: StallTimes = .usual,
        refusal: NetworkFailure? = nil,
        connects: Bool = true
    ) async throws {
        wires.refuse("vif7.0", refusal)
        machine = try SimulatedMachine()
        try machine.createDomain(guestDomain)
        host = try machine.hypervisor(for: .initial)
        guest = try machine.hypervisor(for: guestDomain)
        toolstack = SimulatedToolstack(host)
        offer = NetOffer(maxQueues: 4)
        self.stall = stall
        folder = try FilePath.temporary()
        loop = try EventLoop(name: "frontend")
        serving = Mutex(Serving(environment: try NetScene.environment(host, folder)))
        var card = SimulatedToolstack.NetworkCard(NetScene.victimPath)
        card.script = nil
        card.mac = guestAddress
        card.rate = rate
        card.extraBackendKeys = keys
        self.card = card
        card.path = NetScene.bystanderPath
        card.mac = otherAddress
        card.rate = nil
        card.extraBackendKeys = []
        frontend = NetworkFrontend(guest, loop: loop, index: NetScene.victimPath.index, options: options)
        bystander = NetworkFrontend(guest, loop: loop, index: NetScene.bystanderPath.index)
        for card in [self.card, card] {
            try await toolstack.create(card)
            start(card.path)
        }
        try await bystander.connect()
        if connects { try await frontend.connect() }
    }

    deinit {
        let environments = serving.withLock { $0.retired + [$0.environment] }
        for environment in environments {
            environment.shutDown()
            environment.controlLoop.shutDown()
        }
        loop.shutDown()
        try? FileManager.default.removeItem(atPath: folder.string)
    }

    private static func environment(_ host: any Hypervisor, _ folder: FilePath) throws -> WorkerEnvironment {
        WorkerEnvironment(
            hypervisor: host,
            domain: guestDomain,
            controlLoop: try EventLoop(name: "control"),
            runDirectory: folder,
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() },
            dataLoopLimit: 2
        )
    }

    private func start(_ path: DevicePath) {
        serving.withLock { serving in
            let backend = NetBackend(path, serving.environment, offer, wires, stall: stall)
            serving.backends[path] = backend
            serving.lives[path] = Task(executorPreference: serving.environment.controlLoop) { await backend.run() }
        }
    }

    // MARK: the victim

    var backend: NetBackend { get throws { try #require(serving.withLock { $0.backends[NetScene.victimPath] }) } }
    /// Its interface.
    var wire: WireDevice { get throws { try #require(wires["vif7.0"]) } }

    func counter(_ name: String) async throws -> UInt64 {
        try await backend.report().counters.first { $0.name == name }?.value ?? .max
    }

    func backendKey(_ key: String) async throws -> String? { try await toolstack.backendKey(key, of: card) }
    func writeBackendKey(_ key: String, _ value: String) async throws {
        try await host.store.write("\(card.backend)/\(key)", value)
    }
    /// What the toolstack and people read when a device cannot go on.
    func errorNode() async throws -> String? { try await host.store.read(NetScene.victimPath.errorNode) }

    /// The backend gives up on the connection and says why.
    func isClosed(saying text: String, sourceLocation: SourceLocation = #_sourceLocation) async throws {
        let wasClosed = try await eventually {
            let state = try await self.backendKey("state")
            return state == "5" || state == "6"
        }
        let error = try await errorNode() ?? ""
        #expect(wasClosed && error.contains(text), "\(error)", sourceLocation: sourceLocation)
    }

    /// The worker of the victim dies between two turns.
    func kill() async throws {
        try await backend.abandon()
        await serving.withLock { $0.lives[NetScene.victimPath] }?.value
    }

    /// The toolstack attaches the victim's card once more after its removal; the same worker serves it.
    func reattach() async throws {
        await serving.withLock { $0.lives[NetScene.victimPath] }?.value
        try await toolstack.create(card)
        start(NetScene.victimPath)
    }

    /// A new worker for the victim, with loops of its own.
    func revive() throws {
        let new = try NetScene.environment(host, folder)
        serving.withLock { serving in
            serving.retired.append(serving.environment)
            serving.environment = new
        }
        start(NetScene.victimPath)
    }

    // MARK: the bystander

    /// The bystander's packets go both ways; then everything ends.
    func end(sourceLocation: SourceLocation = #_sourceLocation) async throws {
        try await bystanderIsServed(sourceLocation: sourceLocation)
        let all = serving.withLock { Array($0.backends.values) }
        for backend in all { await backend.drain() }
        let lives = serving.withLock { Array($0.lives.values) }
        for life in lives { await life.value }
        await frontend.abandon()
        await bystander.abandon()
    }

    func bystanderIsServed(sourceLocation: SourceLocation = #_sourceLocation) async throws {
        let wire = try #require(wires["vif7.2"], sourceLocation: sourceLocation)
        let (out, back) = (Frames.udp(1400), Frames.udp(9000))
        let status = try await bystander.sendAndWait(out)
        #expect(status == 0, "the bystander", sourceLocation: sourceLocation)
        #expect(await wire.next()?.bytes == out, "the bystander", sourceLocation: sourceLocation)
        wire.send(WireFrame(bytes: back))
        let received = await bystander.nextPacket()
        #expect(received?.bytes == back, "the bystander", sourceLocation: sourceLocation)
    }
}

extension FilePath {
    /// A folder of our own.
    static func temporary() throws -> FilePath {
        let path = FilePath("/tmp/xenback-test-\(UInt64.random(in: 0 ... .max))")
        try Files.makeDirectory(path, permissions: [.ownerReadWriteExecute])
        return path
    }
}

/// Polls until `condition` holds, at most `limit`.
func eventually(within limit: Duration = .seconds(20), _ condition: () async throws -> Bool) async rethrows -> Bool {
    let end = ContinuousClock.now + limit
    while ContinuousClock.now < end {
        if try await condition() { return true }
        try? await Task.sleep(for: .milliseconds(1))
    }
    return try await condition()
}
