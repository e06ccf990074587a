// A device class in full, with the components and nothing else: it answers each request with the sum of granted bytes.

internal import BackendCore
internal import HostIO
internal import Hypervisor
internal import SharedRing
internal import SystemPackage
internal import XenWire

struct ToyConnection: NegotiatedConnection {
    static let firstKeys = ["ring-ref", BusKeys.eventChannel]
    let ring: GrantReference
    let port: EventChannelPort

    init(_ reader: inout FrontendNodeReader, _ capabilities: Bool) throws(FrontendNodeFault) {
        ring = try reader.reference("ring-ref")
        port = try reader.port(BusKeys.eventChannel)
    }
}

actor ToyBackend: DeviceShell {
    nonisolated let path: DevicePath
    nonisolated let environment: WorkerEnvironment
    nonisolated let signal = WatchSignal()
    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe environment.controlLoop.asUnownedSerialExecutor() }
    var life: DeviceLife
    private var latch: BreakdownLatch?
    private var queue: ToyQueue?

    init(_ path: DevicePath, _ environment: WorkerEnvironment) {
        (self.path, self.environment) = (path, environment)
        life = DeviceLife(path, environment)
    }

    var features: [(String, String)] { [] }
    var announcement: [(String, String)]? { nil }
    var breakdown: Breakdown? { latch?.raised }

    func begin() async -> (frontend: String, policy: HandshakePolicy) {
        (path.frontend, HandshakePolicy(waitsForHotplug: false, removesDirectory: false))
    }
    func openBacking(isTakeover: Bool) async throws(BackendFailure) {}
    func closeBacking() async {}
    func report() async -> DeviceReport { DeviceReport(path: path, phase: life.phase) }

    func connect(isTakeover: Bool) async throws(BackendFailure) -> String {
        let connection: ToyConnection = try await negotiate(true)
        let pages = try mapRing([connection.ring])
        let identity = "domain=\(try await domainIdentity());ring=\(connection.ring);port=\(connection.port)"
        let layout = JournalLayout.slots(ToyWire.slots, queues: 1)
        let past = try openJournal(identity: identity, layout: layout, rings: [pages], isTakeover: isTakeover)
        let (latch, grants) = (BreakdownLatch(signal), environment.hypervisor.grants)
        let data = try environment.dataLoop(device: path.index, queue: 0)
        let queue = ToyQueue(latch, grants, data, CrashLane(mark, queue: 0), path.domain)
        (self.latch, self.queue) = (latch, queue)
        try await queue.open(pages, past, connection.port)
        return "one ring"
    }
    func disconnect() async {
        await queue?.close()
        (queue, latch) = (nil, nil)
    }
    func release() async { await queue?.close(abandons: true) }
}

actor ToyQueue: QueueTurns, CompletionTarget {
    private let (latch, grants, data, mark): (BreakdownLatch, any GrantTable, DataLoop, CrashLane)
    private let domain: DomainID
    private var target: TargetID?
    private var ring: SlotRing?
    private var port: QueuePort?
    private var memory: PrivatePages?
    private var taken: [UInt16] = []
    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe data.loop.asUnownedSerialExecutor() }

    init(_ latch: BreakdownLatch, _ grants: any GrantTable, _ data: DataLoop, _ mark: CrashLane, _ domain: DomainID) {
        (self.latch, self.grants, self.data, self.mark, self.domain) = (latch, grants, data, mark, domain)
    }

    typealias Past = (journal: RequestJournal, isTakeover: Bool)
    func open(_ pages: SharedPages, _ past: Past, _ remote: EventChannelPort) async throws(BackendFailure) {
        let target = data.loop.attach(self)
        self.target = target
        let wake = QueuePort.Wake(target, slot: 0)
        port = try await .bind(remote, of: domain, to: self, on: data, wake: wake, mark: mark.device)
        do {
            memory = try PrivatePages(byteCount: ToyWire.slots * 4096)
            let journal = past.journal.queue(0)
            ring = try SlotRing(pages, ToyWire.format, journal: journal, isTakeover: past.isTakeover)
        } catch {
            throw BackendFailure(.frontend, "\(error)")
        }
        taken = (ring?.unanswered ?? []).map { UInt16($0) }
        if past.isTakeover { port?.notify() }
        turn()
    }

    func close(abandons: Bool = false) {
        if let target { data.loop.detach(target) }
        if abandons { port.take()?.abandon() } else { port.take()?.close() }
        ring = nil
    }

    nonisolated func buffersFreed() {}
    nonisolated func eventArrived(_ port: EventChannelPort) { assumeIsolated { $0.turn() } }
    nonisolated func completed(_ completions: borrowing CompletionBatch) {
        let slot = completions[0].slot
        assumeIsolated { if slot == 0 { $0.port?.unmask() } else { $0.turn() } }
    }

    private func turn() {
        guard ring != nil else { return }
        let end = data.turn(mark) { serve() }
        if let breakdown = port?.ended(end, again: 1) { latch.raise(breakdown) }
    }

    private func serve() -> TurnEnd {
        var worked = false
        do throws(Breakdown) {
            repeat {
                try ring?.take(into: &taken)
                worked = worked || !taken.isEmpty
                answer()
            } while try ring?.lastLook() ?? 0 > 0
            return .idle(worked: worked)
        } catch {
            return .broken(error)
        }
    }

    private func answer() {
        guard let memory, ring != nil else { return }
        var failed: Set<Int> = []
        for slot in taken { ring?.request(Int(slot)).addCopy(to: &data.copies, memory, at: Int(slot) * 4096) }
        data.runCopies(grants, with: domain) { index, _ in failed.insert(index) }
        for (index, slot) in taken.map(Int.init).enumerated() {
            guard let request = ring?.request(slot) else { return }
            let sum = memory.slot(at: slot * 4096, byteCount: 4096).sum(ToyWire.count(of: request))
            ring?.put(ToyWire.response(to: request, failed.contains(index) ? ToyWire.failed : sum), for: slot)
        }
        if ring?.publish() ?? false { port?.notify() }
        taken.removeAll()
    }
}
