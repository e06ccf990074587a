// A guest with simulated cards on the simulated machine: toolstack, workers, frontend.

internal import BackendCore
internal import FrontendDrivers
internal import HostIO
internal import HostPCI
internal import Hypervisor
internal import Logging
internal import SimulatedHost
internal import SimulatedHypervisor
internal import Synchronization
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import PCIBackend

let guestDomain = DomainID(7)!

/// Cards of the host that the tests name.
enum Cards {
    static let network = PCIAddress(bus: 8, device: 5, function: 0)!
    static let disk = PCIAddress(bus: 8, device: 6, function: 0)!
    static let second = PCIAddress(bus: 8, device: 5, function: 1)!
    /// Where the first one is in the guest.
    static let first = PCIAddress(bus: 0, device: 0, function: 0)!

    static func host(_ address: PCIAddress) -> PCIBusAddress { PCIBusAddress("\(address)")! }
}

/// Lines that were logged.
final class LogLines: LogHandler, @unchecked Sendable {
    private let lines = Mutex<[String]>([])
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.trace
    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { nil }
        set {}
    }
    func log(event: LogEvent) { lines.withLock { $0.append("\(event.level): \(event.message)") } }
    var all: [String] { lines.withLock { $0 } }
    func count(_ text: String) -> Int { all.count { $0.contains(text) } }
}

/// One guest with its cards, its worker and its frontend.
final class PCIScene: Sendable {
    let machine: SimulatedMachine
    let host: SimulatedHypervisor
    let guest: SimulatedHypervisor
    let cards = SimulatedPCIHost()
    let toolstack: SimulatedToolstack
    let nodes: SimulatedToolstack.PCIBus
    let frontend: PCIFrontend
    let log = LogLines()
    private let loop: EventLoop
    private let workers: Workers
    private let settings: PCISettings

    /// - Parameters:
    ///   - addresses: cards that the guest has from the beginning.
    ///   - connects: whether its frontend connects.
    init(
        _ addresses: [PCIAddress] = [Cards.network],
        options: PCIOptions = PCIOptions(),
        settings: PCISettings = PCISettings(),
        connects: Bool = true,
        making make: (PCIBusAddress) -> SimulatedPCICard = { SimulatedPCICard($0) }
    ) async throws {
        machine = try SimulatedMachine()
        try machine.createDomain(guestDomain)
        host = try machine.hypervisor(for: .initial)
        guest = try machine.hypervisor(for: guestDomain)
        toolstack = SimulatedToolstack(host)
        loop = try EventLoop(name: "frontend")
        self.settings = settings
        let log = log
        workers = try Workers(host, of: guestDomain, logger: Logger(label: "test") { _ in log })
        let path = DevicePath(kind: .pci, domain: guestDomain, index: 0)
        nodes = SimulatedToolstack.PCIBus(path, addresses.map { ($0, options) })
        frontend = PCIFrontend(guest, loop: loop)
        for address in addresses { try plug(address, make(Cards.host(address)), assigned: true) }
        try await toolstack.create(nodes)
        start()
        if connects { try await frontend.connect() }
    }

    deinit { loop.shutDown() }

    private func start() { workers.start(nodes.path) { PCIBackend(nodes.path, $0, cards, settings) } }

    /// Puts a card into the host.
    /// - Parameter assigned: to the guest, as the toolstack does before it writes the card's keys.
    func plug(_ address: PCIAddress, _ card: SimulatedPCICard? = nil, assigned: Bool) throws {
        let card = card ?? SimulatedPCICard(Cards.host(address))
        cards.plug(card)
        // Xen asks the card itself.
        let cards = cards
        let facts = SimulatedCardFacts(rows: 5) { (try? cards.decodesMemory(card)) ?? false }
        machine.addCard(address, facts)
        if assigned { try machine.assignCard(address, to: guestDomain) }
    }

    // MARK: looking

    var backend: PCIBackend { get throws { try #require(workers.backend(at: nodes.path) as? PCIBackend) } }

    func card(_ address: PCIAddress = Cards.network) throws -> SimulatedPCICard {
        try #require(cards[Cards.host(address)])
    }

    func counter(_ name: String) async throws -> UInt64 {
        try await backend.report().counters.first { $0.name == name }?.value ?? .max
    }

    func detail(_ name: String) async throws -> String? {
        try await backend.report().details.first { $0.name == name }?.value
    }

    func backendKey(_ key: String) async throws -> String? { try await toolstack.backendKey(key, of: nodes) }
    func frontendKey(_ key: String) async throws -> String? {
        try await host.store.read(nodes.path.frontendKey(key))
    }
    func errorNode() async throws -> String? { try await host.store.read(nodes.path.errorNode) }

    /// Interrupts that the guest has, by number.
    var interrupts: [UInt32: MessageInterrupt] { machine.interrupts(of: guestDomain) }

    /// Both sides at 4 again after a change of cards.
    func isSettled(sourceLocation: SourceLocation = #_sourceLocation) async throws {
        let settled = try await eventually {
            let (ours, theirs) = (try await self.backendKey("state"), try await self.frontendKey("state"))
            return ours == "4" && theirs == "4"
        }
        #expect(settled, sourceLocation: sourceLocation)
    }

    /// Whether an operation is answered with this error.
    func refuses(
        _ error: PCIError,
        sourceLocation: SourceLocation = #_sourceLocation,
        _ body: () async throws -> Void
    ) async {
        do {
            try await body()
            Issue.record("it succeeded", sourceLocation: sourceLocation)
        } catch FrontendFailure.pci(let found) {
            #expect(found == error, sourceLocation: sourceLocation)
        } catch {
            Issue.record("\(error)", sourceLocation: sourceLocation)
        }
    }

    /// What the worker keeps for a successor, as it lies in its file.
    func journalState() async throws -> JournalState {
        let vm = try await host.store.read("/local/domain/\(guestDomain)/vm")
        let (page, port) = (try await frontendKey("pci-op-ref") ?? "", try await frontendKey("event-channel") ?? "")
        let journal = try RequestJournal.reopen(
            at: backend.journalPath,
            identity: "domain=\(DomainIdentity(vm: vm)?.text ?? "");page=\(page);port=\(port)",
            layout: .slots(1, queues: 0, stateBytes: PCICardMemory.totalBytes)
        )
        return try #require(journal).state
    }

    // MARK: lives

    /// The worker dies, with everything as it is.
    func kill() async throws {
        try await backend.abandon()
        await workers.end(of: nodes.path)
        try workers.renew()
    }

    /// The worker is stopped for a successor.
    func retire() async throws {
        try await backend.drain()
        await workers.end(of: nodes.path)
        try workers.renew()
    }

    /// A new worker.
    func revive() { start() }

    /// The device is over, and its worker is done with it.
    func remove() async throws {
        try await toolstack.remove(nodes)
        await workers.end(of: nodes.path)
    }

    /// Everything is closed as at the end of a test.
    func end() async throws { await workers.drain() }
}
