// Each component by itself: what it promises, and that its promise cannot be broken from outside.

internal import BackendCore
internal import HostIO
internal import Hypervisor
internal import SharedRing
internal import SimulatedHypervisor
internal import SystemPackage
internal import TestSupport
internal import Testing
internal import XenWire

/// A ring page with a slot journal, without a hypervisor between them.
private struct RingOfOne {
    let pages: SharedPages
    let journal: RequestJournal
    let machine: SimulatedMachine
    let guest: SimulatedHypervisor
    let grant: SharedGrant
    static let format = SlotFormat(requestBytes: 16, responseBytes: 8)

    init(_ layout: JournalLayout) throws {
        machine = try SimulatedMachine()
        try machine.createDomain(guestDomain)
        guest = try machine.hypervisor(for: guestDomain)
        grant = try guest.sharing.share(pageCount: 1, with: .initial, access: .readWrite)
        pages = grant.pages
        journal = try RequestJournal.create(
            at: try FilePath.temporary().appending("journal"),
            identity: "test",
            layout: layout
        )
    }
}

@Suite struct ComponentTests {
    @Test func aSlotIsFreeOnlyWhenItsResponseIsVisible() throws {
        let stage = try RingOfOne(.slots(128, queues: 1))
        var front = FrontRing(pages: stage.pages, stride: 16)
        var ring = try SlotRing(stage.pages, RingOfOne.format, journal: stage.journal.queue(0), isTakeover: false)
        for id: UInt64 in 0..<3 { front.put(WireWords(low: id, high: 0), count: 16) }
        _ = front.push()
        var slots: [UInt16] = []
        #expect(try ring.take(atMost: 2, into: &slots) == 2)
        #expect(try ring.take(into: &slots) == 1)
        #expect(slots.map { ring.request(Int($0)).u32(0) } == [0, 1, 2])
        #expect(ring.inFlight == 3 && !ring.hasAnswers)
        ring.put(WireWords(low: 1, high: 0), for: Int(slots[1]))
        #expect(try front.poll() == 0 && ring.inFlight == 3)
        _ = ring.publish()
        #expect(try front.poll() == 1)
        #expect(ring.published == [slots[1]] && ring.inFlight == 2)
        #expect(!ring.publish() && ring.published == [])

        // A successor finds the other two, oldest first, also the one with an answer that nobody saw, and answers both.
        ring.put(WireWords(low: 0, high: 0), for: Int(slots[0]))
        var next = try SlotRing(stage.pages, RingOfOne.format, journal: stage.journal.queue(0), isTakeover: true)
        let left = next.unanswered
        #expect(left.map { next.request($0).u32(0) } == [0, 2])
        #expect(next.inFlight == 2)
        for slot in left { next.put(WireWords(low: 0, high: 0), for: slot) }
        _ = next.publish()
        #expect(try front.poll() == 3 && next.inFlight == 0)
    }

    @Test func aRingThatLiesIsTheFrontends() throws {
        let stage = try RingOfOne(.slots(128, queues: 1))
        var ring = try SlotRing(stage.pages, RingOfOne.format, journal: stage.journal.queue(0), isTakeover: false)
        stage.pages.storeRelease(4000, at: RingLayout.requestProducer)
        var slots: [UInt16] = []
        do throws(Breakdown) {
            try ring.take(into: &slots)
            Issue.record("taken")
        } catch {
            if case .host = error { Issue.record("\(error)") }
        }
        #expect(slots == [])
    }

    #if DEBUG
        @Test func answeringWhatWasNotTakenTraps() async {
            await #expect(processExitsWith: .failure) {
                let stage = try RingOfOne(.slots(128, queues: 1))
                var ring = try SlotRing(
                    stage.pages,
                    RingOfOne.format,
                    journal: stage.journal.queue(0),
                    isTakeover: false
                )
                ring.put(WireWords(low: 0, high: 0), for: 3)
            }
        }

        @Test func answeringTwiceTraps() async {
            await #expect(processExitsWith: .failure) {
                let stage = try RingOfOne(.slots(128, queues: 1))
                var front = FrontRing(pages: stage.pages, stride: 16)
                for id: UInt64 in 0..<2 { front.put(WireWords(low: id, high: 0), count: 16) }
                _ = front.push()
                var ring = try SlotRing(
                    stage.pages,
                    RingOfOne.format,
                    journal: stage.journal.queue(0),
                    isTakeover: false
                )
                var slots: [UInt16] = []
                try ring.take(into: &slots)
                ring.put(WireWords(low: 0, high: 0), for: Int(slots[0]))
                ring.put(WireWords(low: 0, high: 0), for: Int(slots[0]))
            }
        }

        @Test func answeringBeforeTheCommitTraps() async {
            await #expect(processExitsWith: .failure) {
                let stage = try RingOfOne(.rings(1, slots: 128))
                var front = FrontRing(pages: stage.pages, stride: 16)
                front.put(WireWords(low: 0, high: 0), count: 16)
                _ = front.push()
                var ring = try OrderedRing(
                    stage.pages,
                    RingOfOne.format,
                    journal: stage.journal.ring(0),
                    isTakeover: false
                )
                _ = try ring.poll()
                _ = ring.take()
                ring.put(WireWords(low: 0, high: 0))
            }
        }

        @Test func aTurnThatFindsAnothersCopiesTraps() async {
            await #expect(processExitsWith: .failure) {
                let machine = try SimulatedMachine()
                try machine.createDomain(guestDomain)
                let workers = try TestLoop(try machine.hypervisor(for: .initial))
                let memory = try PrivatePages(byteCount: 4096)
                await workers.run { data in
                    data.copies.add(
                        reference: GrantReference(1),
                        pageOffset: 0,
                        byteCount: 1,
                        intoGrant: false,
                        pages: memory,
                        privateOffset: 0
                    )
                    data.turn(CrashLane(nil, queue: 0)) {}
                }
            }
        }
    #endif

    @Test func anOrderedRingGoesOnWhereItsPredecessorStopped() throws {
        let stage = try RingOfOne(.rings(1, slots: 128))
        var front = FrontRing(pages: stage.pages, stride: 16)
        for id: UInt64 in 0..<4 { front.put(WireWords(low: id, high: 0), count: 16) }
        _ = front.push()
        var ring = try OrderedRing(stage.pages, RingOfOne.format, journal: stage.journal.ring(0), isTakeover: false)
        #expect(try ring.poll() == 4)
        for id: UInt32 in 0..<3 { #expect(ring.take().u32(0) == id) }
        #expect(ring.waiting == 1)
        ring.commit()
        ring.put(WireWords(low: 100, high: 0))
        _ = ring.publish()
        #expect(try front.poll() == 1)

        var next = try OrderedRing(stage.pages, RingOfOne.format, journal: stage.journal.ring(0), isTakeover: true)
        #expect(next.unanswered == 2)
        #expect(next.request(next.responseProducer).u32(0) == 1)
        #expect(try next.poll() == 1)
        #expect(next.take().u32(0) == 3)
    }

    /// Whatever becomes of a batch, the next turn finds none.
    @Test(arguments: [nil, Errno.ioError]) func aBatchIsEmptyWhenItRan(errno: Errno?) async throws {
        let machine = try SimulatedMachine()
        try machine.createDomain(guestDomain)
        let (host, guest) = (try machine.hypervisor(for: .initial), try machine.hypervisor(for: guestDomain))
        let grant = try guest.sharing.share(pageCount: 1, with: .initial, access: .readWrite)
        let memory = try PrivatePages(byteCount: 8192)
        if let errno { try host.inject(FaultPlan([FaultPlan.Rule(.copy, by: .initial, .fail(errno))])) }
        let loop = try TestLoop(host)
        let failed = await loop.run { data in
            var failed: [Int] = []
            for reference in [grant.references[0], GrantReference(4000)] {
                data.copies.add(
                    reference: reference,
                    pageOffset: 0,
                    byteCount: 16,
                    intoGrant: false,
                    pages: memory,
                    privateOffset: 0
                )
            }
            let count = data.runCopies(host.grants, with: guestDomain) { index, _ in failed.append(index) }
            #expect(count == 2 && data.copies.count == 0)
            #expect(data.runCopies(host.grants, with: guestDomain) { _, _ in Issue.record("none") } == 0)
            return failed
        }
        #expect(failed == (errno == nil ? [1] : [0, 1]))
        await loop.end()
    }

    @Test func crashMarksNest() throws {
        let marks = try CrashMarks(try FilePath.temporary().appending("marks"))
        let device = try #require(marks.mark(for: "vbd/1"))
        let mark = CrashLane(device, queue: 3)
        mark.during {
            mark.during { #expect(device.isBusy) }
            #expect(device.isBusy)
        }
        #expect(!device.isBusy)
    }

    @Test func noGrantAndNoPortIsNamedTwice() throws {
        var reader = FrontendNodeReader(FrontendNodes(["a": "5", "b": "5", "p": "7", "q": "7"]))
        #expect(try reader.reference("a") == GrantReference(5))
        #expect(throws: FrontendNodeFault("b", "repeats grant 5")) { try reader.reference("b") }
        #expect(try reader.port("p") == EventChannelPort(7))
        #expect(throws: FrontendNodeFault("q", "repeats port 7")) { try reader.port("q") }
    }

    @Test func logsOfADeviceShareWhatTheyMaySay() {
        let lines = LogLines()
        let device = FaultLog(lines.logger)
        for _ in 0..<50 {
            var queue = FaultLog(sharing: device)
            queue.fault("bad")
            queue.failure("no space")
        }
        #expect(lines.all.count { $0.contains("bad") } == 5)
        #expect(lines.all.count { $0.contains("no space") } == 1)
        var again = FaultLog(sharing: device)
        again.forget()
        again.failure("no space")
        #expect(lines.all.count { $0.contains("no space") } == 2)
    }
}

/// A data loop by itself.
private final class TestLoop: Sendable {
    let data: DataLoop
    private let environment: WorkerEnvironment

    init(_ hypervisor: any Hypervisor) throws {
        environment = WorkerEnvironment(
            hypervisor: hypervisor,
            domain: guestDomain,
            controlLoop: try EventLoop(name: "control"),
            runDirectory: try FilePath.temporary(),
            logger: LogLines().logger,
            dataLoopLimit: 1
        )
        data = try environment.dataLoop(device: 0, queue: 0)
    }

    func run<Result: Sendable>(_ body: @escaping @Sendable (DataLoop) -> Result) async -> Result {
        await withCheckedContinuation { continuation in
            data.loop.perform { [data] in continuation.resume(returning: body(data)) }
        }
    }

    func end() async {
        environment.shutDown()
        environment.controlLoop.shutDown()
    }
}
