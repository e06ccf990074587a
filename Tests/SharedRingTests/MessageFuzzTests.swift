// Two ends of a netchannel2 link that do whatever comes to their mind: honest ones, who must lose nothing and never find
// fault with each other, and a hostile one, who must harm nobody.
//
// More rounds: XENBACK_FUZZ_ROUNDS=1000000 swift test --filter MessageFuzz

import Glibc
import SharedRing
import Testing
import XenWire

/// Rounds for a test that usually has `usual`.
private func rounds(_ usual: Int) -> Int {
    guard let text = unsafe getenv("XENBACK_FUZZ_ROUNDS") else { return usual }
    return unsafe Int(String(cString: text)) ?? usual
}

/// One end, and what it remembers.
private final class FuzzEnd {
    var ring: MessageRing<NetChannel2Layout>
    var session = NetChannel2Session(capacity: 64)
    let memory: PrivatePages
    /// Numbers of packets that it must still finish.
    var owed: [UInt32] = []
    /// Stamps of the packets that it sent and that it was given.
    var sent: [UInt32] = []
    var heard: [UInt32] = []
    /// Packets of its own that were finished.
    var finishedCount = 0
    var begunCount = 0
    /// It sleeps until the other one notifies.
    var isAsleep = false
    /// The other one has notified.
    var isWoken = false
    /// It waits for room, too.
    private var isBlocked = false

    init(_ ring: consuming MessageRing<NetChannel2Layout>) throws {
        self.ring = ring
        memory = try PrivatePages(byteCount: 8192)
    }

    /// Says what it takes, and keeps room for what it may come to owe.
    func open(_ random: inout RingRandom) throws {
        let most = NetChannel2Wire.maxPackets(producingRingBytes: Int(ring.outgoing.ringBytes))
        let limits = NetChannel2Limits(
            maxPackets: UInt32.random(in: 1...min(most, 40), using: &random),
            maxFragments: UInt32.random(in: 1...18, using: &random),
            offloads: [.checksum]
        )
        let (first, second, third) = session.open(limits)
        for words in [first, second, third] { ring.outgoing.put(words) }
        let isReserved = try ring.outgoing.reserve(
            limits.maxPackets * UInt32(NetChannel2Wire.finishReservation)
        )
        #expect(isReserved)
    }

    /// Sends a packet with this stamp.
    /// - Returns: false if there is no room for it, or it may not be sent.
    func send(_ stamp: UInt32, _ random: inout RingRandom) throws -> Bool {
        guard session.isOpen else { return false }
        let isSmall = Bool.random(using: &random)
        let fragments = isSmall ? 0 : Int.random(in: 1...Int(min(session.peer.maxFragments, 18)), using: &random)
        let prefix = Int.random(in: 14...256, using: &random)
        let size = NetChannel2Wire.packetMessage(fragments: fragments, prefix: prefix)
        guard try ring.outgoing.hasRoom(for: UInt32(size)) else {
            isBlocked = true
            return false
        }
        var packet = NetChannel2Packet(
            id: 0,
            type: isSmall ? .small : .receiverMap,
            flags: session.peer.offloads.contains(.checksum) && Bool.random(using: &random) ? .checksumBlank : [],
            prefixSize: prefix,
            fragmentCount: fragments,
            byteCount: prefix
        )
        if !isSmall {
            guard let id = session.begin(now: UInt64(stamp)) else { return false }
            packet.id = id
            begunCount += 1
        }
        let head = memory.slot(at: 0, byteCount: packet.prefixOffset)
        packet.encode(into: head)
        for index in 0..<fragments {
            let fragment = NetChannel2Fragment(size: 100, offset: 8, reference: GrantReference(stamp))
            NetChannel2Packet.encode(fragment, at: index, into: head)
        }
        memory.slot(at: 1024, byteCount: 256).set32(stamp, at: 0)
        ring.outgoing.put(head, body: memory, at: 1024, count: prefix)
        sent.append(stamp)
        return true
    }

    /// Takes up to `count` messages.
    func take(_ count: Int) throws {
        for _ in 0..<count {
            if ring.incoming.waiting == 0, try ring.incoming.poll() == 0 { return }
            let header = try ring.incoming.next()
            if header.type == .pad || Int(header.size) > NetChannel2Wire.maxMessage {
                ring.incoming.skip(header)
                if header.type != .pad { try session.skipped(header) }
                continue
            }
            try receive(ring.incoming.take(header, into: memory.slot(at: 4096, byteCount: 512)))
        }
    }

    private func receive(_ message: Slot) throws {
        switch try session.receive(message) {
        case .nothing, .limits: break
        case .packet(let packet), .refused(let packet):
            if packet.prefixSize >= 4 { heard.append(message.u32(packet.prefixOffset)) }
            // What was decoded lies in the private copy, whatever was in it.
            precondition(packet.prefixOffset + packet.prefixSize <= message.byteCount)
            if packet.needsFinish { owed.append(packet.id) }
        case .finished: finishedCount += 1
        case .answer(let words): if try ring.outgoing.hasRoom(forShort: 1) { ring.outgoing.put(words) }
        }
    }

    /// Finishes up to `count` of the packets that it was given, in any order.
    func finish(_ count: Int, _ random: inout RingRandom, isSure: Bool) throws {
        for _ in 0..<min(count, owed.count) {
            let hasRoom = try ring.outgoing.hasRoom(for: 8, .reserved)
            if isSure, !hasRoom { Issue.record("room was reserved for every packet that we said we would take") }
            guard hasRoom else {
                isBlocked = true
                return
            }
            let index = Int.random(in: 0..<owed.count, using: &random)
            ring.outgoing.put(session.finish(id: owed.remove(at: index)))
        }
    }

    /// Changes what it takes.
    func change(_ random: inout RingRandom) throws {
        guard try ring.outgoing.hasRoom(for: 8) else { return }
        if Bool.random(using: &random) {
            ring.outgoing.put(session.change(Bool.random(using: &random) ? .checksum : []))
        } else {
            ring.outgoing.put(session.change(maxFragments: UInt32.random(in: 1...18, using: &random)))
        }
    }

    /// Shows what was put and taken.
    /// - Returns: whether the other end asked for an event.
    func flush() -> Bool {
        let asked = ring.outgoing.publish()
        return ring.incoming.release() || asked
    }

    /// Goes to sleep if there is nothing to do.
    func sleep() throws {
        if try ring.incoming.lastLook() > 0 { return }
        if isBlocked {
            isBlocked = false
            if try ring.outgoing.waitForRoom() { return }
        }
        isAsleep = true
    }
}

/// A pair of them.
private final class FuzzLink {
    let control = makePages(1)
    let payloads: (SharedPages, SharedPages)
    let ends: [FuzzEnd]

    init(_ random: inout RingRandom, starts: [UInt32] = [0, 0xFFFF_F000, 0xFFFF_FFF8]) throws {
        let start = starts.randomElement(using: &random) ?? 0
        payloads = (
            makePages(1 << Int.random(in: 0...2, using: &random)), makePages(1 << Int.random(in: 0...2, using: &random))
        )
        for ring in [NetChannel2End.frontend, .backend] {
            control.storeRelease(start, at: NetChannel2Layout.producer(ring))
            control.storeRelease(start, at: NetChannel2Layout.consumer(ring))
        }
        var ends: [FuzzEnd] = []
        for end in [NetChannel2End.frontend, .backend] {
            let ring = MessageRing<NetChannel2Layout>(
                control: control,
                frontendPayload: payloads.0,
                backendPayload: payloads.1,
                end: end,
                consumed: start,
                produced: start
            )
            ends.append(try FuzzEnd(ring))
        }
        self.ends = ends
        for end in ends { try end.open(&random) }
    }

    /// A turn of one end.
    func turn(_ number: Int, _ stamp: UInt32, _ random: inout RingRandom) throws {
        let (end, other) = (ends[number], ends[1 - number])
        if end.isAsleep {
            // Or it has something to send.
            guard end.isWoken || Int.random(in: 0..<8, using: &random) == 0 else { return }
            (end.isAsleep, end.isWoken) = (false, false)
        }
        switch Int.random(in: 0..<10, using: &random) {
        case 0..<4: _ = try end.send(stamp, &random)
        case 4..<6: try end.take(Int.random(in: 1...30, using: &random))
        case 6: try end.finish(Int.random(in: 1...30, using: &random), &random, isSure: true)
        case 7: try end.change(&random)
        default:
            if end.flush() { other.isWoken = true }
            if end.owed.isEmpty, Bool.random(using: &random) { try end.sleep() }
        }
    }

    /// Both do what is left to do; whoever sleeps does nothing, unless it was woken.
    func settle(_ random: inout RingRandom) throws {
        // An end that has sent all of it does nothing but answer.
        for _ in 0..<200 {
            for (number, end) in ends.enumerated() where !end.isAsleep || end.isWoken {
                (end.isAsleep, end.isWoken) = (false, false)
                try end.take(10_000)
                try end.finish(10_000, &random, isSure: true)
                if end.flush() { ends[1 - number].isWoken = true }
                try end.sleep()
            }
            if ends.allSatisfy({ $0.isAsleep && !$0.isWoken }) { return }
        }
        Issue.record("both ends keep each other awake for ever")
    }
}

@Suite struct MessageFuzz {
    /// Everything that was sent arrives, in order; everything is finished; nobody sleeps while there is work.
    @Test func honestEnds() throws {
        var random = RingRandom(seed: 0x2009)
        let all = rounds(75_000)
        var done = 0
        while done < all {
            let link = try FuzzLink(&random)
            let count = min(3000, all - done)
            for round in 0..<count {
                try link.turn(Int.random(in: 0...1, using: &random), UInt32(round), &random)
            }
            done += count
            try link.settle(&random)
            let (front, back) = (link.ends[0], link.ends[1])
            #expect(back.heard == front.sent && front.heard == back.sent)
            for end in link.ends { #expect(end.session.outstanding == 0 && end.session.owed == 0) }
            for end in link.ends { #expect(end.finishedCount == end.begunCount) }
            #expect(front.sent.count + back.sent.count > count / 20)
        }
    }

    /// The frontend writes what it likes, where it likes, into all pages that it can write. The backend finds fault, and
    /// its device is closed; or it does not, and then it never took more than it announced.
    @Test func aHostileFrontend() throws {
        var random = RingRandom(seed: 0x1009)
        let all = rounds(25_000)
        var (done, faults, packets) = (0, 0, 0)
        while done < all {
            let link = try FuzzLink(&random)
            let victim = link.ends[1]
            do {
                for round in 0..<500 {
                    done += 1
                    // Sometimes it behaves, so that there is something to break.
                    if Int.random(in: 0..<10, using: &random) > 0 {
                        try? link.turn(0, UInt32(round), &random)
                    } else {
                        attack(link, &random)
                    }
                    victim.isWoken = true
                    try serve(link, UInt32(round), &random)
                    if victim.session.owed > victim.session.own.maxPackets || victim.session.outstanding > 64 {
                        Issue.record("owes \(victim.session.owed), waits for \(victim.session.outstanding)")
                    }
                }
            } catch is MessageRingFault {
                faults += 1
            } catch is NetChannel2Violation {
                faults += 1
            }
            packets += victim.heard.count
        }
        #expect(faults > all / 1000 && packets > all / 1000, "\(faults) faults, \(packets) packets")
    }

    private func serve(_ link: FuzzLink, _ stamp: UInt32, _ random: inout RingRandom) throws {
        let victim = link.ends[1]
        try victim.take(20)
        try victim.finish(20, &random, isSure: false)
        _ = try victim.send(stamp, &random)
        if victim.flush() { link.ends[0].isWoken = true }
        _ = try victim.ring.incoming.lastLook()
        _ = try victim.ring.outgoing.waitForRoom()
    }

    private func attack(_ link: FuzzLink, _ random: inout RingRandom) {
        let payload = link.payloads.0
        let produced = link.ends[0].ring.outgoing.produced
        switch Int.random(in: 0..<8, using: &random) {
        case 0:
            // Any word of the control page, the backend's among them.
            let offset = [0, 4, 8, 12, 64, 68, 72, 76].randomElement(using: &random) ?? 0
            link.control.storeRelease(anyNumber(near: produced, &random), at: offset)
        case 1: payload.storeRelease(UInt32(truncatingIfNeeded: random.next()), at: place(payload, &random))
        case 2, 3:
            // A header that could be one.
            let type = UInt8.random(in: 0...18, using: &random)
            let size = 8 * Int.random(in: 0...60, using: &random)
            let header = NetChannel2Header(NetChannel2MessageType(rawValue: type), size: size)
            payload.storeRelease(header.word, at: place(payload, &random) & ~7)
        case 4...6:
            // A message of any kind right where the backend will look.
            forge(link, produced, &random)
        default:
            link.control.storeRelease(
                produced &+ 8 &* UInt32.random(in: 0...80, using: &random),
                at: NetChannel2Layout.producer(.frontend)
            )
        }
    }

    private func forge(_ link: FuzzLink, _ produced: UInt32, _ random: inout RingRandom) {
        let front = link.ends[0]
        guard (try? front.ring.outgoing.hasRoom(for: 96)) == true else { return }
        let type = UInt8.random(in: 1...17, using: &random)
        let size = type == 2 ? 96 : (type == 17 ? 16 : (type == 9 || type == 10 ? 40 : 8))
        let slot = front.memory.slot(at: 0, byteCount: size)
        for offset in stride(from: 0, to: size, by: 4) {
            slot.set32(UInt32(truncatingIfNeeded: random.next()) & 0x3FF, at: offset)
        }
        slot.set32(NetChannel2Header(NetChannel2MessageType(rawValue: type), size: size).word, at: 0)
        if type == 2 {
            slot.set8([1, 3, 4].randomElement(using: &random) ?? 4, at: 8)
            slot.set8(UInt8.random(in: 0...1, using: &random), at: 9)
            slot.set16(0, at: 10)
            slot.set16(76 - (slot.u8(8) == 4 ? 0 : 8), at: 12)
        }
        front.ring.outgoing.put(slot)
        _ = front.ring.outgoing.publish()
    }

    private func place(_ payload: SharedPages, _ random: inout RingRandom) -> Int {
        Int.random(in: 0..<payload.byteCount, using: &random) & ~3
    }

    private func anyNumber(near produced: UInt32, _ random: inout RingRandom) -> UInt32 {
        switch Int.random(in: 0..<4, using: &random) {
        case 0: UInt32(truncatingIfNeeded: random.next())
        case 1: produced &+ UInt32.random(in: 0...64, using: &random)
        case 2: produced &- UInt32.random(in: 0...64, using: &random)
        default: produced &+ 8 &* UInt32.random(in: 0...1024, using: &random)
        }
    }
}
