// Both ends of a link in one process: pages of the heap, grants by number, copies made at once.

import Glibc
import NetChannel2
import SharedRing
import Testing
import XenWire

/// Fresh shared pages without a hypervisor.
func makePages(_ count: Int) -> SharedPages {
    let byteCount = count * SharedPages.pageSize
    let address = unsafe mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)!
    // SAFETY: a mapping of `byteCount` bytes that nobody else unmaps.
    nonisolated(unsafe) let base = unsafe address
    return unsafe SharedPages(base: base, byteCount: byteCount) { _ = unsafe munmap(base, byteCount) }
}

/// SplitMix64, so that a failure can be repeated.
struct LinkRandom: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var word = state
        word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
        return word ^ (word >> 31)
    }
}

/// One end, with a turn like a driver's.
final class LinkEnd {
    var link: NetChannel2Link
    var intake: NetChannel2Intake
    var copies = GrantCopyBatch(capacity: 256)
    let out: PrivatePages
    /// The grants of the other end, by number: its pages, and which of them.
    var grants: [UInt32: (SharedPages, Int)] = [:]
    let ownPages: SharedPages
    let references: [GrantReference]
    /// Copies out of these fail.
    var badGrants: Set<UInt32> = []
    var heard: [[UInt8]] = []
    var heardPackets: [NetChannel2Packet] = []
    var refusedCount = 0
    var clock: UInt64 = 0
    /// What was not sent yet.
    var queue: [[UInt8]] = []

    init(
        _ ring: consuming MessageRing<NetChannel2Layout>,
        firstReference: UInt32,
        pageCount: Int,
        capacity: Int,
        trustsPeer: Bool = false
    ) throws {
        ownPages = makePages(pageCount)
        references = (0..<UInt32(pageCount)).map { GrantReference(firstReference + $0) }
        intake = try NetChannel2Intake()
        out = try PrivatePages(byteCount: 128 * 1024)
        link = NetChannel2Link(
            ring,
            NetChannel2Session(capacity: capacity, trustsPeer: trustsPeer),
            GrantedPages(ownPages, references: references, slots: capacity),
            memory: try PrivatePages(byteCount: 4096)
        )
    }

    /// Sends a packet if that is possible now.
    func send(_ bytes: [UInt8], _ edit: (inout NetChannel2Outgoing) -> Void = { _ in }) throws -> NetChannel2Sent {
        out.write(bytes, at: 512)
        var packet = NetChannel2Outgoing(offset: 512, byteCount: bytes.count)
        edit(&packet)
        clock += 1
        return try link.send(packet, out, now: clock)
    }

    /// Sends what is queued, in order.
    func sendQueued() throws {
        while let first = queue.first {
            guard try send(first) == .sent else { return }
            queue.removeFirst()
        }
    }

    /// Takes what waits, makes the copies, finishes.
    /// - Returns: the last step, which ended the turn.
    @discardableResult
    func turn() throws -> NetChannel2Step {
        intake.clear()
        var step = NetChannel2Step.other
        while step == .other || step == .packet { step = try link.takeNext(&intake, copies: &copies) }
        var index = 0
        for copy in 0..<copies.count where !run(copy) { _ = intake.failed(copy, from: &index) }
        copies.clear()
        for taken in intake.packets {
            guard taken.isWhole else {
                refusedCount += 1
                continue
            }
            heard.append(intake.memory.slot(at: taken.offset, byteCount: taken.packet.byteCount).bytes)
            heardPackets.append(taken.packet)
        }
        link.finish(intake)
        return step
    }

    /// As Xen makes a copy out of a granted page.
    private func run(_ index: Int) -> Bool {
        let copy = copies[index]
        guard let (pages, page) = grants[copy.reference.rawValue], !badGrants.contains(copy.reference.rawValue) else {
            return false
        }
        // SAFETY: the page is one of `pages`, offset and count lie in it (the batch checked), and the private end is
        // held by the intake.
        let source = unsafe pages.unsafeBase.advanced(by: page * SharedPages.pageSize + Int(copy.pageOffset))
        unsafe copy.unsafeAddress.copyMemory(from: source, byteCount: Int(copy.byteCount))
        return true
    }

    // What `#expect` cannot call on a noncopyable member.
    func flush() -> Bool { link.flush() }
    func sleep() throws -> Bool { try link.sleep() }
    func canSend() throws -> Bool { try link.canSend() }
    var outstanding: Int { link.outstanding }
    var owed: UInt32 { link.owed }
    var unknownCount: UInt32 { link.unknownCount }
    var freePages: Int { link.freePages }
    var peer: NetChannel2Limits { link.peer }
    var oldest: UInt64? { link.oldest }
}

/// Two ends that have opened.
final class LinkPair {
    let control = makePages(1)
    let frontendPayload: SharedPages
    let backendPayload: SharedPages
    let front: LinkEnd
    let back: LinkEnd

    static let limits = NetChannel2Limits(maxPackets: 64, maxFragments: 18, offloads: [.checksum, .segmentationV4])

    init(
        order: Int = 2,
        limits: (NetChannel2Limits, NetChannel2Limits) = (LinkPair.limits, LinkPair.limits),
        pageCount: Int = 256,
        startingAt start: UInt32 = 0
    ) throws {
        frontendPayload = makePages(1 << order)
        backendPayload = makePages(1 << order)
        for ring in [NetChannel2End.frontend, .backend] {
            control.storeRelease(start, at: NetChannel2Layout.producer(ring))
            control.storeRelease(start, at: NetChannel2Layout.consumer(ring))
        }
        let (control, frontendPayload, backendPayload) = (control, frontendPayload, backendPayload)
        func end(_ end: NetChannel2End) throws -> LinkEnd {
            try LinkEnd(
                MessageRing(
                    control: control,
                    frontendPayload: frontendPayload,
                    backendPayload: backendPayload,
                    end: end,
                    consumed: start,
                    produced: start
                ),
                firstReference: end == .frontend ? 1000 : 5000,
                pageCount: pageCount,
                capacity: 64
            )
        }
        (front, back) = (try end(.frontend), try end(.backend))
        for (end, other, limits) in [(front, back, limits.0), (back, front, limits.1)] {
            try end.link.open(limits)
            _ = end.flush()
            for (page, reference) in other.references.enumerated() {
                end.grants[reference.rawValue] = (other.ownPages, page)
            }
        }
        for end in [front, back] { try end.turn() }
    }

    /// Both take turns until neither has anything to do. Whoever sleeps does nothing until it is notified.
    func settle() throws {
        var isAwake = [true, true]
        for _ in 0..<10_000 {
            for (number, end) in [front, back].enumerated() where isAwake[number] {
                try end.turn()
                try end.sendQueued()
                if end.flush() { isAwake[1 - number] = true }
                isAwake[number] = try !end.sleep()
            }
            if !isAwake[0], !isAwake[1] { return }
        }
        Issue.record("both ends keep each other awake for ever")
    }
}
