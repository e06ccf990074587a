// One end of a netchannel2 link: its rings, its protocol and its granted pages, for whichever end it is.

public import SharedRing
public import XenWire

/// Why a link cannot go on: the other end broke its rules.
public enum NetChannel2LinkFault: Error, Hashable, Sendable, CustomStringConvertible {
    case ring(MessageRingFault)
    case violation(NetChannel2Violation)

    public var description: String {
        switch self {
        case .ring(let fault): "\(fault)"
        case .violation(let violation): "\(violation)"
        }
    }
}

/// What came of looking for a message.
public enum NetChannel2Step: Hashable, Sendable {
    /// A packet was added to the intake.
    case packet
    /// The other end's limits changed, one of our packets was finished, or nothing follows from the message.
    case other
    /// No message waits.
    case empty
    /// The turn has as much as it can take.
    case full
    /// There would be no room for what the next message demands of us: the other end does not take what we send.
    case blocked
}

/// A packet to be sent: where it lies, and what is to be said about it.
public struct NetChannel2Outgoing: Sendable {
    public var offset: Int
    public var byteCount: Int
    public var flags: NetChannel2PacketFlags = []
    /// 0: not to be segmented.
    public var segmentSize: UInt16 = 0
    public var checksumStart: UInt16 = 0
    public var checksumOffset: UInt16 = 0

    public init(offset: Int, byteCount: Int) {
        self.offset = offset
        self.byteCount = byteCount
    }
}

/// What came of sending a packet.
public enum NetChannel2Sent: Hashable, Sendable {
    case sent
    /// Not now: no room in the ring, no page free, or as many packets under way as the other end allows.
    case wait
    /// Never: the other end takes no packet in so many fragments, or none this large.
    case unfit
}

/// The one place that both ends' drivers drive. Not thread-safe: one loop owns it. Nothing is allocated after `init`.
public struct NetChannel2Link: ~Copyable {
    /// Bytes of a large packet that go in its message: the headers, in all likelihood, which the receiver then has in
    /// private memory at once.
    public static let prefixBytes = 128

    private var ring: MessageRing<NetChannel2Layout>
    private var session: NetChannel2Session
    private var pages: GrantedPages
    private let head: Slot
    private let headMemory: PrivatePages
    private var isBlocked = false
    /// Packets of ours that were finished.
    public private(set) var finishedCount: UInt64 = 0

    /// - Parameters:
    ///   - pages: what our packets lie in; its slots are those of `session`.
    ///   - memory: at least one page of our own.
    public init(
        _ ring: consuming MessageRing<NetChannel2Layout>,
        _ session: consuming NetChannel2Session,
        _ pages: consuming GrantedPages,
        memory: PrivatePages
    ) {
        self.ring = ring
        self.session = session
        self.pages = pages
        headMemory = memory
        head = memory.slot(at: 0, byteCount: NetChannel2Wire.maxMessage)
    }

    /// Says what we take, and keeps room for all that we may come to owe. Once, on a fresh ring.
    public mutating func open(_ limits: NetChannel2Limits) throws(NetChannel2LinkFault) {
        let (packets, offloads, fragments) = session.open(limits)
        do throws(MessageRingFault) {
            for words in [packets, offloads, fragments] {
                guard try ring.outgoing.hasRoom(for: 8) else { break }
                ring.outgoing.put(words)
            }
            // Beside them, the answer to one message more (`look`).
            let count = limits.maxPackets &+ 2
            let isReserved = try ring.outgoing.reserve(
                count &* UInt32(truncatingIfNeeded: NetChannel2Wire.finishReservation)
            )
            precondition(isReserved, "more packets announced than the ring has room to finish")
        } catch {
            throw .ring(error)
        }
    }

    /// What the other end takes.
    public var peer: NetChannel2Limits { session.peer }
    /// Whether it takes any packet at all.
    public var isOpen: Bool { session.isOpen }
    /// Packets of ours that it has not finished.
    public var outstanding: Int { session.outstanding }
    /// Since when the oldest of them waits.
    public var oldest: UInt64? { session.oldest }
    /// Messages of unknown types.
    public var unknownCount: UInt32 { session.unknownCount }
    /// Packets that we have not finished.
    public var owed: UInt32 { session.owed }
    /// Pages that no packet has.
    public var freePages: Int { pages.freeCount }

    // MARK: taking

    private enum Look {
        case message(NetChannel2Header)
        /// Too large to be looked into.
        case skipped(NetChannel2Header)
        case step(NetChannel2Step)
    }

    /// Whether any message waits.
    public mutating func hasMessages() throws(NetChannel2LinkFault) -> Bool {
        if ring.incoming.waiting > 0 { return true }
        do throws(MessageRingFault) { return try ring.incoming.poll() > 0 } catch { throw .ring(error) }
    }

    /// Takes the next message. The copies of a packet are added to `copies`; they are to be made before `finish`.
    public mutating func takeNext(
        _ intake: inout NetChannel2Intake,
        copies: inout GrantCopyBatch
    ) throws(NetChannel2LinkFault) -> NetChannel2Step {
        let look: Look
        do throws(MessageRingFault) { look = try self.look(intake, copies) } catch { throw .ring(error) }
        switch look {
        case .step(let step): return step
        case .skipped(let header):
            do throws(NetChannel2Violation) { try session.skipped(header) } catch { throw .violation(error) }
            return .other
        case .message(let header):
            let message = ring.incoming.take(header, into: intake.nextMessage)
            let verdict: NetChannel2Verdict
            do throws(NetChannel2Violation) {
                verdict = try session.receive(message)
            } catch {
                throw .violation(error)
            }
            return try obey(verdict, &intake, &copies)
        }
    }

    /// Looks at the next message, and skips it if it is none to be looked into.
    private mutating func look(
        _ intake: borrowing NetChannel2Intake,
        _ copies: borrowing GrantCopyBatch
    ) throws(MessageRingFault) -> Look {
        if ring.incoming.waiting == 0, try ring.incoming.poll() == 0 { return .step(.empty) }
        guard intake.hasRoom(copies) else { return .step(.full) }
        // Whatever it is, it may demand one message of 8 bytes.
        guard try ring.outgoing.hasRoom(forShort: session.owed &+ 1) else {
            isBlocked = true
            return .step(.blocked)
        }
        let header = try ring.incoming.next()
        guard header.type == .pad || Int(header.size) > NetChannel2Wire.maxMessage else { return .message(header) }
        ring.incoming.skip(header)
        return header.type == .pad ? .step(.other) : .skipped(header)
    }

    private mutating func obey(
        _ verdict: NetChannel2Verdict,
        _ intake: inout NetChannel2Intake,
        _ copies: inout GrantCopyBatch
    ) throws(NetChannel2LinkFault) -> NetChannel2Step {
        switch verdict {
        case .packet(let packet): intake.add(packet, isRefused: false, copies: &copies)
        case .refused(let packet): intake.add(packet, isRefused: true, copies: &copies)
        case .finished(let slot):
            pages.takeBack(slot: slot)
            finishedCount &+= 1
            return .other
        case .answer(let words):
            ring.outgoing.put(words)
            return .other
        case .limits, .nothing: return .other
        }
        return .packet
    }

    /// Finishes the packets of an intake, delivered or not, as soon as their bytes are ours.
    public mutating func finish(_ intake: borrowing NetChannel2Intake) {
        for index in 0..<intake.packets.count where intake.packets[index].packet.needsFinish {
            // `look` saw that there is room.
            ring.outgoing.put(session.finish(intake.packets[index].packet))
        }
    }

    // MARK: sending

    /// Puts a packet of ours into the ring; the other end sees it after `flush`.
    /// - Parameter memory: where it lies; free again when this returns.
    public mutating func send(
        _ packet: NetChannel2Outgoing,
        _ memory: PrivatePages,
        now: UInt64
    ) throws(NetChannel2LinkFault) -> NetChannel2Sent {
        guard packet.byteCount <= NetChannel2Wire.maxPacket else { return .unfit }
        let isSmall = packet.byteCount <= NetChannel2Wire.maxPrefix
        let prefix = isSmall ? packet.byteCount : NetChannel2Link.prefixBytes
        let rest = packet.byteCount &- prefix
        let fragments = NetChannel2Link.pages(of: rest)
        guard fragments <= NetChannel2Wire.maxFragments, fragments <= Int(clamping: session.peer.maxFragments) else {
            return session.isOpen ? .unfit : .wait
        }
        guard session.isOpen, isSmall || session.mayBegin, fragments <= pages.freeCount else { return .wait }
        let size = NetChannel2Wire.packetMessage(fragments: fragments, prefix: prefix)
        do throws(MessageRingFault) {
            guard try ring.outgoing.hasRoom(for: UInt32(truncatingIfNeeded: size)) else {
                isBlocked = true
                return .wait
            }
        } catch {
            throw .ring(error)
        }
        var message = NetChannel2Packet(
            id: 0,
            type: isSmall ? .small : .receiverMap,
            flags: packet.flags,
            segmentSize: packet.segmentSize,
            checksumStart: packet.checksumStart,
            checksumOffset: packet.checksumOffset,
            prefixSize: prefix,
            fragmentCount: fragments,
            byteCount: packet.byteCount
        )
        if !isSmall, let id = session.begin(now: now) {
            message.id = id
            pages.lend(
                toSlot: NetChannel2Session.slot(of: id),
                memory,
                at: packet.offset &+ prefix,
                count: rest,
                message: head
            )
        }
        message.encode(into: head)
        let front = headMemory.slot(at: 0, byteCount: message.prefixOffset)
        ring.outgoing.put(front, body: memory, at: packet.offset, count: prefix)
        return .sent
    }

    /// Whether a packet of any size that the other end takes can be sent now. If not, `sleep` asks to be told of room.
    public mutating func canSend() throws(NetChannel2LinkFault) -> Bool {
        let fragments = min(NetChannel2Wire.maxFragments, Int(clamping: session.peer.maxFragments))
        guard session.isOpen, session.mayBegin, fragments <= pages.freeCount else { return false }
        do throws(MessageRingFault) {
            let hasRoom = try ring.outgoing.hasRoom(for: UInt32(truncatingIfNeeded: NetChannel2Wire.maxMessage))
            isBlocked = isBlocked || !hasRoom
            return hasRoom
        } catch {
            throw .ring(error)
        }
    }

    private static func pages(of byteCount: Int) -> Int {
        (byteCount &+ NetChannel2Wire.pageSize &- 1) / NetChannel2Wire.pageSize
    }

    /// Takes other offloads from now on.
    /// - Returns: false if there is no room to say so; try again.
    public mutating func change(_ offloads: NetChannel2Offloads) throws(NetChannel2LinkFault) -> Bool {
        do throws(MessageRingFault) {
            guard try ring.outgoing.hasRoom(for: 8) else {
                isBlocked = true
                return false
            }
        } catch {
            throw .ring(error)
        }
        ring.outgoing.put(session.change(offloads))
        return true
    }

    // MARK: events

    /// Shows the other end what was put, and gives it the room of what was taken.
    /// - Returns: whether it asked to be notified of either.
    public mutating func flush() -> Bool {
        let asked = ring.outgoing.publish()
        return ring.incoming.release() || asked
    }

    /// Asks for an event with the next message, and, if something waited for room since the last time, with the next room;
    /// then looks once more.
    /// - Returns: whether there is nothing to do; if not, go on instead of sleeping.
    public mutating func sleep() throws(NetChannel2LinkFault) -> Bool {
        do throws(MessageRingFault) {
            var wasFreed = false
            if isBlocked { wasFreed = try ring.outgoing.waitForRoom() }
            isBlocked = false
            let hasMessages = try ring.incoming.lastLook() > 0
            if !hasMessages { return !wasFreed }
            // A message that waits for room is not worth staying awake for.
            if try ring.outgoing.hasRoom(forShort: session.owed &+ 1) { return false }
            return try !ring.outgoing.waitForRoom()
        } catch {
            throw .ring(error)
        }
    }
}
