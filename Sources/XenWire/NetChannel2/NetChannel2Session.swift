// The protocol of one end of a netchannel2 link: what both have announced, and which packets are under way.

/// What an end of a link takes, as it tells the other.
public struct NetChannel2Limits: Hashable, Sendable {
    /// Packets that were sent to it and not finished. 0: none can be sent, not even small ones.
    public var maxPackets: UInt32
    /// Fragments of one packet.
    public var maxFragments: UInt32
    public var offloads: NetChannel2Offloads

    public init(maxPackets: UInt32, maxFragments: UInt32, offloads: NetChannel2Offloads) {
        self.maxPackets = maxPackets
        self.maxFragments = maxFragments
        self.offloads = offloads
    }

    /// Until an end says something else.
    public static let unannounced = NetChannel2Limits(maxPackets: 0, maxFragments: 1, offloads: [])
}

/// What follows from a message.
public enum NetChannel2Verdict: Hashable, Sendable {
    /// Nothing to do: a hint, a PAD, or a message of another version.
    case nothing
    /// The other end's limits have changed (`NetChannel2Session.peer`).
    case limits
    /// A packet to be delivered, and then finished if it needs that.
    case packet(NetChannel2Packet)
    /// A packet to be dropped, and finished if it needs that: it was under way when we took back what it uses.
    case refused(NetChannel2Packet)
    /// What was kept for our packet with this slot is free again.
    case finished(slot: Int)
    /// To be sent back.
    case answer(WireWords)
}

/// One end's view of one connection. Both ends are alike; who trusts whom is the only difference.
///
/// Decides and counts, and does nothing else: rings, pages and clocks are the owner's. Allocates at the beginning only.
public struct NetChannel2Session: ~Copyable, Sendable {
    /// Packets of ours that can wait for their FINISH_PACKET, whatever the other end allows.
    public static let maxOutstanding = 1024
    /// Messages of unknown types in one connection.
    public static let maxUnknown: UInt32 = 256
    @usableFromInline static let slotMask: UInt32 = 1023
    @usableFromInline static let slotBits: UInt32 = 10

    /// One of our packets that needs a FINISH_PACKET.
    @usableFromInline
    struct Slot: Sendable {
        /// The number it has, or the next one to have this slot will get: its upper bits change each time.
        @usableFromInline var id: UInt32
        @usableFromInline var isUsed = false
        @usableFromInline var since: UInt64 = 0
    }

    private let trustsPeer: Bool
    /// What we have announced.
    public private(set) var own = NetChannel2Limits.unannounced
    private var hasAnnounced = false
    /// The most that was ever announced: packets under way do not know of less yet.
    @usableFromInline var past = NetChannel2Limits.unannounced
    /// What the other end has announced.
    public private(set) var peer = NetChannel2Limits.unannounced
    private var hasPeerLimit = false
    /// Packets that we were given and have not finished.
    public private(set) var owed: UInt32 = 0
    @usableFromInline var slots: [Slot]
    @usableFromInline var free: [Int]
    /// Messages of unknown types so far.
    public private(set) var unknownCount: UInt32 = 0

    /// - Parameters:
    ///   - capacity: packets of ours that can wait for their FINISH_PACKET, 1 … `maxOutstanding`.
    ///   - trustsPeer: whether the other end may ask for bypasses.
    public init(capacity: Int, trustsPeer: Bool = false) {
        precondition(capacity >= 1 && capacity <= NetChannel2Session.maxOutstanding)
        self.trustsPeer = trustsPeer
        slots = (0..<capacity).map { Slot(id: UInt32(truncatingIfNeeded: $0)) }
        free = Array((0..<capacity).reversed())
    }

    // MARK: what we take

    /// What every connection begins with: SET_MAX_PACKETS, SET_OFFLOAD, SET_MAX_FRAGMENTS_PER_PACKET. Once.
    public mutating func open(_ limits: NetChannel2Limits) -> (WireWords, WireWords, WireWords) {
        precondition(!hasAnnounced && limits.maxFragments > 0)
        hasAnnounced = true
        own = limits
        past = limits
        return (
            NetChannel2Message.maxPackets(limits.maxPackets), NetChannel2Message.offloads(limits.offloads),
            NetChannel2Message.maxFragments(limits.maxFragments)
        )
    }

    /// Takes other offloads from now on.
    public mutating func change(_ offloads: NetChannel2Offloads) -> WireWords {
        own.offloads = offloads
        past.offloads.formUnion(offloads)
        return NetChannel2Message.offloads(offloads)
    }

    /// Takes more or fewer fragments from now on.
    public mutating func change(maxFragments: UInt32) -> WireWords {
        precondition(maxFragments > 0)
        own.maxFragments = maxFragments
        past.maxFragments = max(past.maxFragments, maxFragments)
        return NetChannel2Message.maxFragments(maxFragments)
    }

    // MARK: what we are given

    /// Takes a message, from its private copy.
    public mutating func receive(_ bytes: some WireBytes) throws(NetChannel2Violation) -> NetChannel2Verdict {
        let message: NetChannel2Message
        do throws(NetChannel2MessageFault) {
            message = try NetChannel2Message(decoding: bytes)
        } catch {
            throw .message(error)
        }
        switch message {
        case .packet(let packet): return try receive(packet)
        case .finishPacket(let id): return .finished(slot: try finished(id))
        case .setMaxPackets(let count):
            if hasPeerLimit { throw .limitRepeated }
            hasPeerLimit = true
            peer.maxPackets = count
            return .limits
        case .setOffload(let offloads):
            peer.offloads = offloads
            return .limits
        case .setMaxFragmentsPerPacket(let count):
            if count == 0 { throw .noFragments }
            peer.maxFragments = count
            return .limits
        case .bypass(let bypass): return try answer(bypass)
        case .pad: return .nothing
        case .unknown(let type):
            try unknown(type)
            return .nothing
        }
    }

    /// A message larger than `NetChannel2Wire.maxMessage` was skipped, unseen.
    public mutating func skipped(_ header: NetChannel2Header) throws(NetChannel2Violation) {
        if header.type.isKnown { throw .message(.wrongSize(type: header.type, size: Int(header.size))) }
        try unknown(header.type)
    }

    private mutating func unknown(_ type: NetChannel2MessageType) throws(NetChannel2Violation) {
        unknownCount &+= 1
        if unknownCount > NetChannel2Session.maxUnknown { throw .tooManyUnknown(type) }
    }

    private mutating func receive(_ packet: NetChannel2Packet) throws(NetChannel2Violation) -> NetChannel2Verdict {
        guard hasAnnounced else { throw .packetBeforeLimit }
        if packet.needsFinish {
            guard owed < own.maxPackets else { throw .tooManyPackets(limit: own.maxPackets) }
        }
        guard packet.fragmentCount <= Int(past.maxFragments) else {
            throw .tooManyFragments(packet.fragmentCount, limit: past.maxFragments)
        }
        let used = NetChannel2Session.offloads(of: packet)
        guard past.offloads.isSuperset(of: used) else { throw .offloadNotAnnounced }
        if packet.needsFinish { owed &+= 1 }
        return own.offloads.isSuperset(of: used) ? .packet(packet) : .refused(packet)
    }

    private static func offloads(of packet: NetChannel2Packet) -> NetChannel2Offloads {
        var offloads: NetChannel2Offloads = []
        if packet.flags.contains(.checksumBlank) { offloads.insert(.checksum) }
        if packet.segmentSize > 0 { offloads.insert(.segmentationV4) }
        return offloads
    }

    /// The FINISH_PACKET of a packet that we were given.
    @inlinable
    public mutating func finish(_ packet: NetChannel2Packet) -> WireWords { finish(id: packet.id) }

    /// As above, for a packet of which only the number was kept.
    public mutating func finish(id: UInt32) -> WireWords {
        precondition(owed > 0, "finished twice")
        owed &-= 1
        return NetChannel2Message.finish(id: id)
    }

    /// No end of ours has bypasses: nobody must, and who asks is told no.
    private func answer(_ bypass: NetChannel2Bypass) throws(NetChannel2Violation) -> NetChannel2Verdict {
        switch bypass {
        case .suggest: return .nothing
        case .ready, .frontendReady, .disabled, .detached: throw .bypassUnasked
        case .frontend, .backend, .disable, .detach: if !trustsPeer { throw .bypassFromUntrusted }
        }
        let refusal: NetChannel2Bypass
        switch bypass {
        case .frontend: refusal = .frontendReady(port: -1)
        case .disable(let handle): refusal = .disabled(handle: handle)
        case .detach(let handle): refusal = .detached(handle: handle)
        // It has no answer; the other end never hears READY on it, and sends nothing there.
        default: return .nothing
        }
        return refusal.answer.map { .answer($0) } ?? .nothing
    }

    // MARK: what we send

    /// Packets of ours that wait for their FINISH_PACKET.
    @inlinable public var outstanding: Int { slots.count &- free.count }

    /// Whether the other end takes any packet, small ones included.
    @inlinable public var isOpen: Bool { peer.maxPackets > 0 }

    /// Whether another packet that needs a FINISH_PACKET may be sent.
    @inlinable
    public var mayBegin: Bool { !free.isEmpty && outstanding < Int(clamping: peer.maxPackets) }

    /// Gives a packet that needs a FINISH_PACKET its number.
    /// - Returns: nil if none may be sent now.
    @inlinable
    public mutating func begin(now: UInt64) -> UInt32? {
        guard mayBegin, let slot = free.popLast() else { return nil }
        slots[slot].isUsed = true
        slots[slot].since = now
        return slots[slot].id
    }

    /// The slot of a packet with this number, 0 … capacity - 1: whoever keeps something for a packet keeps it there.
    @inlinable
    public static func slot(of id: UInt32) -> Int { Int(id & slotMask) }

    @inlinable
    mutating func finished(_ id: UInt32) throws(NetChannel2Violation) -> Int {
        let slot = NetChannel2Session.slot(of: id)
        guard slot < slots.count, slots[slot].isUsed, slots[slot].id == id else { throw .unknownFinish(id: id) }
        slots[slot].isUsed = false
        // The same number again is another packet's only after 2²² others.
        slots[slot].id = id &+ 1 &<< NetChannel2Session.slotBits
        free.append(slot)
        return slot
    }

    /// Since when the oldest packet of ours waits for its FINISH_PACKET; nil if none does. Looks at all of them: for a
    /// timer.
    public var oldest: UInt64? { slots.lazy.filter(\.isUsed).map(\.since).min() }
}
