// A controller's queue on rings of its own, that can be ended between any two stores of its journal.

internal import BackendCore
internal import Foundation
internal import FrontendDrivers
internal import HostIO
internal import HostUSB
internal import Hypervisor
internal import Logging
internal import SharedRing
internal import SimulatedHost
internal import SimulatedHypervisor
internal import Synchronization
internal import SystemPackage
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import USBBackend

/// What there is when a life ends: all memory that outlives it.
struct Moment: Sendable {
    let journal: PrivatePages
    let urbs: PrivatePages
    let connections: PrivatePages
    let data: PrivatePages
    /// What the device has done in each life, and how many responses were published when that life ended.
    var lives: [(published: UInt32, ledger: LedgerFunction.Ledger)]
    /// Of the store after which it is.
    let offset: Int

    /// Requests taken off the ring, as the journal has it.
    var consumed: UInt32 { journal.slot(at: DeathStage.journalHeader, byteCount: 4).loadAcquire(at: 0) }
    var published: UInt32 { lives.last?.published ?? 0 }
    var pushed: UInt32 { urbs.slot(at: RingLayout.requestProducer, byteCount: 4).loadAcquire(at: 0) }

    /// The same just before that store: only the word that it wrote is as it was.
    func before(_ earlier: Moment) throws -> Moment {
        let pages = try PrivatePages(byteCount: journal.byteCount)
        pages.copy(from: journal, at: 0, count: journal.byteCount, to: 0)
        pages.copy(from: earlier.journal, at: offset, count: 4, to: offset)
        return Moment(journal: pages, urbs: urbs, connections: connections, data: data, lives: lives, offset: offset)
    }
}

/// The rings, the guest's pages, the device and the host, which all outlive any queue.
final class DeathStage: JournalTrace {
    static let journalHeader = 4096
    static let pageCount = 28
    private static let place = USBBusAddress("1-1")!
    private static let layout = JournalLayout.slots(
        USBWire.urbSlots,
        queues: 1,
        requestBytes: USBWire.urbStride,
        stateBytes: USBPortMemory.totalBytes
    )

    let function = LedgerFunction()
    let rings: RawUSBRings
    let data: SharedGrant
    private let usb = SimulatedUSB()
    private let machine: SimulatedMachine
    private let environment: WorkerEnvironment
    private let facts: USBQueueFacts
    private let folder: FilePath
    private let moments = Mutex<[Moment]?>(nil)
    private let current = Mutex<(journal: PrivatePages?, lives: [(published: UInt32, ledger: LedgerFunction.Ledger)])>(
        (nil, [])
    )
    private let files = Mutex(0)

    init() async throws {
        machine = try SimulatedMachine()
        try machine.createDomain(guestDomain)
        let host = try machine.hypervisor(for: .initial)
        let guest = try machine.hypervisor(for: guestDomain)
        folder = try FilePath.temporary()
        environment = WorkerEnvironment(
            hypervisor: host,
            domain: guestDomain,
            controlLoop: try EventLoop(name: "control"),
            runDirectory: folder,
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() },
            dataLoopLimit: 1
        )
        let path = DevicePath(kind: .vusb, domain: guestDomain, index: 0)
        try await SimulatedToolstack(host).create(SimulatedToolstack.USBController(path))
        let raw = RawUSBFrontend(guest, index: 0)
        rings = try await raw.makeRings()
        data = try await raw.makePages(DeathStage.pageCount)
        rings.connections.requestProducer = UInt32(USBWire.connectionSlots)
        facts = USBQueueFacts(
            path: path,
            shape: USBControllerShape(.usb20, portCount: 2)!,
            host: usb,
            grants: host.grants,
            data: try environment.dataLoop(device: 0, queue: 0),
            mark: nil
        )
        try usb.plug(function, at: DeathStage.place)
    }

    deinit {
        environment.shutDown()
        environment.controlLoop.shutDown()
        try? FileManager.default.removeItem(atPath: folder.string)
    }

    // MARK: lives

    /// The first life.
    func begin() async throws -> USBQueue {
        function.begin(hangs: true)
        let path = journalPath()
        let journal = try RequestJournal.create(at: path, identity: "", layout: DeathStage.layout, trace: self)
        try remember(path, lives: [])
        return try await queue(journal, isTakeover: false, awaitsDevice: true)
    }

    /// A life after one that ended at that moment.
    /// - Parameter hangs: whether the device says nothing where it may.
    func succeed(_ moment: Moment, hangs: Bool, awaitsDevice: Bool) async throws -> USBQueue {
        function.begin(hangs: hangs)
        let path = journalPath()
        _ = try RequestJournal.create(at: path, identity: "", layout: DeathStage.layout, trace: nil)
        try remember(path, lives: moment.lives)
        let file = current.withLock { $0.journal }
        file?.copy(from: moment.journal, at: 0, count: moment.journal.byteCount, to: 0)
        rings.urbs.grant.pages.copyIn(at: 0, count: 4096, from: moment.urbs, at: 0)
        rings.connections.grant.pages.copyIn(at: 0, count: 4096, from: moment.connections, at: 0)
        data.pages.copyIn(at: 0, count: moment.data.byteCount, from: moment.data, at: 0)
        let journal = try RequestJournal.reopen(at: path, identity: "", layout: DeathStage.layout, trace: self)
        return try await queue(try #require(journal), isTakeover: true, awaitsDevice: awaitsDevice)
    }

    private func queue(_ journal: RequestJournal, isTakeover: Bool, awaitsDevice: Bool) async throws -> USBQueue {
        let queue = try USBQueue(facts, log: FaultLog(environment.logger))
        await queue.start(["1-1", ""])
        if awaitsDevice { try await hasDevice(queue) }
        try await queue.open(
            USBQueue.Opening(
                urbRing: rings.urbs.grant.pages,
                connectionRing: rings.connections.grant.pages,
                journal: journal,
                port: rings.urbs.port,
                latch: BreakdownLatch(WatchSignal()),
                log: FaultLog(environment.logger),
                isTakeover: isTakeover
            )
        )
        return queue
    }

    private func hasDevice(_ queue: USBQueue) async throws {
        let hasIt = await eventually {
            await queue.account().ports.contains { port in
                if case .device(bus: "1-1", _) = port.state { true } else { false }
            }
        }
        #expect(hasIt)
    }

    /// The queue is gone, and so are the device's transfers.
    func end(_ queue: USBQueue) async throws {
        try await hasDevice(queue)
        await queue.abandon()
        await usb.endOwner(at: DeathStage.place)
    }

    private func journalPath() -> FilePath {
        let number = files.withLock { files in
            files += 1
            return files
        }
        return folder.appending("\(number)")
    }

    private func remember(_ path: FilePath, lives: [(published: UInt32, ledger: LedgerFunction.Ledger)]) throws {
        let file = try FileDescriptor.open(path, .readWrite)
        let pages = try file.closeAfter {
            try PrivatePages(byteCount: Int(try file.seek(offset: 0, from: .end)), file: file)
        }
        current.withLock { $0 = (pages, lives) }
    }

    // MARK: moments

    /// From now on every store is a moment at which this life can end.
    func record() { moments.withLock { $0 = [] } }

    /// All moments since `record`: after each store, and just before each but the first.
    func recorded() throws -> [Moment] {
        let all = moments.withLock { moments in
            defer { moments = nil }
            return moments ?? []
        }
        return try all.indices.flatMap { $0 == 0 ? [all[0]] : [try all[$0].before(all[$0 - 1]), all[$0]] }
    }

    func storedRequest(slot: Int) {}

    func stored(_ value: UInt32, at offset: Int) {
        guard moments.withLock({ $0 != nil }), let moment = try? moment(offset) else { return }
        moments.withLock { $0?.append(moment) }
    }

    private func moment(_ offset: Int) throws -> Moment {
        let (journal, lives) = current.withLock { $0 }
        let file = try #require(journal)
        let copy = try PrivatePages(byteCount: file.byteCount)
        copy.copy(from: file, at: 0, count: file.byteCount, to: 0)
        return Moment(
            journal: copy,
            urbs: try DeathStage.copy(rings.urbs.grant.pages),
            connections: try DeathStage.copy(rings.connections.grant.pages),
            data: try DeathStage.copy(data.pages),
            lives: lives + [(rings.urbs.responseProducer, function.ledger)],
            offset: offset
        )
    }

    private static func copy(_ pages: SharedPages) throws -> PrivatePages {
        let copy = try PrivatePages(byteCount: pages.byteCount)
        pages.copyOut(at: 0, count: pages.byteCount, to: copy, at: 0)
        return copy
    }

    // MARK: the guest

    func segments(_ page: Int, _ count: Int) -> [URBSegment] {
        stride(from: 0, to: count, by: 4096).map { start in
            let reference = data.references[page + start / 4096]
            return URBSegment(reference, offset: 0, length: UInt16(min(4096, count - start)))
        }
    }

    func write(_ word: UInt32, page: Int) { data.pages.storeRelease(word, at: page * 4096) }
    func word(page: Int) -> UInt32 { data.pages.loadAcquire(at: page * 4096) }

    /// Requests so far.
    var pushed: UInt32 { rings.urbs.requestProducer }

    /// What is to go wrong with the device.
    var faults: SimulatedFaults { get throws { try #require(usb.faults(at: DeathStage.place)) } }

    static func pipe(_ type: USBTransferType, _ endpoint: UInt8, _ direction: USBDirection) -> USBPipe {
        USBPipe(USBPort(1)!, type, device: 5, endpoint: endpoint, direction)
    }

    /// A request for bytes of endpoint 0x81.
    func receive(_ id: UInt16, page: Int, _ count: Int, isFlagged: Bool = false) -> [UInt8] {
        RawUSBRings.request(
            id: id,
            DeathStage.pipe(.bulk, 1, .in),
            .bulk,
            segments: segments(page, count),
            flags: isFlagged ? 1 : 0
        )
    }

    /// A vendor request to endpoint 0, which 64 bytes answer.
    func vendor(_ id: UInt16, page: Int, request: UInt8 = 1) -> [UInt8] {
        RawUSBRings.request(
            id: id,
            DeathStage.pipe(.control, 0, .in),
            .control(SetupPacket(0xC0, request, length: 64)),
            segments: segments(page, 64)
        )
    }

    /// The device's address is set.
    func address() async throws {
        let pipe = USBPipe(USBPort(1)!, .control, device: 0, .out)
        rings.send([RawUSBRings.request(id: 0, pipe, .control(SetupPacket(0, 5, value: 5)))])
        try #require(await sees(pushed))
    }

    func unlink(_ id: UInt16, of other: UInt16) -> [UInt8] {
        let pipe = USBPipe(USBPort(1)!, .bulk, device: 5, endpoint: 1, .in, isUnlink: true)
        return RawUSBRings.request(id: id, pipe, .unlink(other))
    }

    /// Waits for answers without taking any.
    func hasAnswered(_ responses: UInt32, within limit: Duration = .seconds(20)) async -> Bool {
        await rings.urbs.waitForResponses(upTo: responses, within: limit)
    }

    /// Takes answers, and says so as frontends do, until there are as many.
    func sees(_ responses: UInt32) async -> Bool {
        await eventually {
            let producer = rings.urbs.responseProducer
            rings.urbs.responseEvent = producer &+ 1
            return Int32(bitPattern: producer &- responses) >= 0
        }
    }
}
