// Slots of a transmit ring in, packets that cannot be wrong out.

/// One piece of a packet: inside one granted page, never empty.
public struct TransmitFragment: Hashable, Sendable {
    public let reference: GrantReference
    /// First byte in the page; `offset + byteCount` is at most 4096.
    public let offset: UInt16
    /// 1 … 4096.
    public let byteCount: UInt16

    @inlinable
    init(reference: GrantReference, offset: UInt16, byteCount: UInt16) {
        self.reference = reference
        self.offset = offset
        self.byteCount = byteCount
    }
}

/// A frontend's change to the list of multicast addresses it wants. No packet is sent with it.
public enum MulticastRequest: Hashable, Sendable {
    case add(MACAddress)
    case delete(MACAddress)
}

/// Puts packets together from the slots of a transmit ring, one after another, in fixed room.
///
/// Feed it a private copy of each slot in ring order. The rules, and which of them are fatal, are those of xen-netback
/// (`xenvif_tx_build_gops`, `xenvif_get_extras`, `xenvif_count_requests`):
///
/// | slot | what it is |
/// | --- | --- |
/// | 0 | request; its size is the packet's |
/// | 1 … `extraCount` | extras, if the first has `extraInfo` |
/// | then | requests, as long as the one before has `moreData` |
///
/// When a packet is complete or dropped, all its slots must be answered: slot by slot with `response(toSlot:_:)`. The
/// packet's properties hold until the next slot is fed.
public struct TransmitParser: ~Copyable {
    /// What a slot made of the packet.
    public enum Step: Hashable, Sendable {
        /// The packet continues in the next slot. If there is none, `ended()` says what that means.
        case needsMore
        case packet
        case multicast(MulticastRequest)
        /// Answer every slot with `error`.
        case dropped(TransmitFault)
    }

    @usableFromInline enum Place { case between, extras, data }

    @usableFromInline var place: Place
    @usableFromInline var fault: TransmitFault?
    // The first slot's and those of `NetWire.maxFurtherSlots`.
    @usableFromInline var pieces: InlineArray<19, TransmitFragment>
    // Of the first slot and of `NetWire.fatalSlots`.
    @usableFromInline var ids: InlineArray<21, UInt16>
    @usableFromInline var furtherSlots: Int
    @usableFromInline var multicast: MulticastRequest?
    /// What is left of the packet's size for the first slot.
    @usableFromInline var remaining: Int
    @usableFromInline var fragments: Int
    @usableFromInline var extras: Int
    @usableFromInline var size: Int
    @usableFromInline var firstFlags: TransmitFlags
    @usableFromInline var segments: Segmentation?

    public init() {
        place = .between
        pieces = InlineArray(repeating: TransmitFragment(reference: GrantReference(0), offset: 0, byteCount: 0))
        ids = InlineArray(repeating: 0)
        furtherSlots = 0
        remaining = 0
        fragments = 0
        extras = 0
        size = 0
        firstFlags = []
    }

    /// Fragments of the packet: 1 … 19. Slots without bytes do not count (XSA-448).
    @inlinable public var fragmentCount: Int { fragments }
    /// Slots of extras behind the first.
    @inlinable public var extraCount: Int { extras }
    /// Bytes of the packet: 14 … 65535.
    @inlinable public var byteCount: Int { size }
    /// Those of the first slot.
    @inlinable public var flags: TransmitFlags { firstFlags }
    @inlinable public var segmentation: Segmentation? { segments }

    /// Ring slots of the packet so far.
    @inlinable public var slotCount: Int { 1 &+ extraCount &+ furtherSlots }

    /// Piece `index` (below `fragmentCount`, ours) of the packet, in order.
    @inlinable
    public func fragment(_ index: Int) -> TransmitFragment {
        precondition(index >= 0 && index < fragmentCount)
        return pieces[index]
    }

    /// Whether slot `slot` (below `slotCount`, ours) is an extra's.
    @inlinable public func isExtra(_ slot: Int) -> Bool { slot > 0 && slot <= extraCount }

    /// The id that slot `slot` (below `slotCount`, ours) is answered with; 0 for an extra.
    @inlinable
    public func id(ofSlot slot: Int) -> UInt16 {
        precondition(slot >= 0 && slot < slotCount)
        if slot == 0 { return ids[0] }
        return slot <= extraCount ? 0 : ids[slot &- extraCount]
    }

    /// The 4 bytes that answer slot `slot` (below `slotCount`, ours): `null` for an extra, else `status`.
    @inlinable
    public func response(toSlot slot: Int, _ status: TransmitStatus) -> WireWords {
        TransmitResponse.words(id: id(ofSlot: slot), status: isExtra(slot) ? .null : status)
    }

    /// Takes the next slot.
    /// - Parameter slot: 12 private bytes.
    /// - Throws: what closes the device. The slots fed so far need no answer.
    @inlinable
    public mutating func feed(_ slot: some WireBytes) throws(NetRingFault) -> Step {
        switch place {
        case .between: return try begin(TransmitRequest(slot))
        case .extras: return try addExtra(slot.u64(0))
        case .data: return try addData(TransmitRequest(slot))
        }
    }

    /// To be called where the ring ends (its producer index is reached). A frontend shows a packet whole or not at all.
    /// - Throws: `missingExtra`, `missingData`.
    @inlinable
    public func ended() throws(NetRingFault) {
        switch place {
        case .between: break
        case .extras: throw .missingExtra
        case .data: throw .missingData
        }
    }

    @inlinable
    mutating func begin<Bytes: WireBytes>(_ request: TransmitRequest<Bytes>) throws(NetRingFault) -> Step {
        fault = nil
        multicast = nil
        segments = nil
        furtherSlots = 0
        extras = 0
        fragments = 1
        firstFlags = request.flags
        size = Int(request.size)
        remaining = size
        ids[0] = request.id
        // Its own length is known when all others are.
        pieces[0] = TransmitFragment(reference: request.reference, offset: request.offset, byteCount: 0)
        return try advance(hasExtra: firstFlags.contains(.extraInfo), hasMore: firstFlags.contains(.moreData))
    }

    @inlinable
    mutating func addExtra(_ word: UInt64) throws(NetRingFault) -> Step {
        extras &+= 1
        switch try ExtraInfo(word: word) {
        case .segmentation(let value): segments = value
        case .multicastAdd(let address): multicast = .add(address)
        // Not over an addition, for which xen-netback looks first.
        case .multicastDelete(let address): multicast = multicast ?? .delete(address)
        case .hash, .headroom: break
        }
        let hasExtra = ExtraInfo.hasMore(word: word)
        if !hasExtra, let multicast {
            // A special request: without data, whatever its flags say.
            place = .between
            return .multicast(multicast)
        }
        return try advance(hasExtra: hasExtra, hasMore: firstFlags.contains(.moreData))
    }

    @inlinable
    mutating func addData<Bytes: WireBytes>(_ request: TransmitRequest<Bytes>) throws(NetRingFault) -> Step {
        guard furtherSlots < NetWire.fatalSlots else { throw .tooManySlots }
        let (offset, bytes) = (request.offset, request.size)
        guard Int(offset) &+ Int(bytes) <= NetWire.pageSize else { throw .crossesPage(offset: offset, size: bytes) }
        furtherSlots &+= 1
        ids[furtherSlots] = request.id
        if furtherSlots > NetWire.maxFurtherSlots {
            fault = fault ?? .tooManySlots
        } else if Int(bytes) > remaining {
            fault = fault ?? .sizeMismatch
        } else if bytes != 0 {
            pieces[fragments] = TransmitFragment(reference: request.reference, offset: offset, byteCount: bytes)
            fragments &+= 1
            remaining &-= Int(bytes)
        }
        return try advance(hasExtra: false, hasMore: request.flags.contains(.moreData))
    }

    @inlinable
    mutating func advance(hasExtra: Bool, hasMore: Bool) throws(NetRingFault) -> Step {
        guard !hasExtra else {
            place = .extras
            return .needsMore
        }
        guard !hasMore else {
            place = .data
            return .needsMore
        }
        place = .between
        if let fault { return .dropped(fault) }
        guard remaining >= NetWire.minFirstSize else { return .dropped(.firstTooShort(remaining)) }
        let first = pieces[0]
        guard Int(first.offset) &+ remaining <= NetWire.pageSize else {
            throw .crossesPage(offset: first.offset, size: UInt16(truncatingIfNeeded: remaining))
        }
        pieces[0] = TransmitFragment(
            reference: first.reference,
            offset: first.offset,
            byteCount: UInt16(truncatingIfNeeded: remaining)
        )
        return .packet
    }
}
