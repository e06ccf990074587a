// Pages of ours that the other end may read: given out to packets, taken back when these are finished.

public import SharedRing
public import XenWire

/// A fixed number of pages, granted to the other end for as long as the link lives, and lent to one packet after another.
///
/// The other end may only read them, and they hold nothing but what was sent to it, so a page that it keeps mapped after
/// FINISH_PACKET shows it later packets of its own and nothing else. What it never finishes stays lent.
public struct GrantedPages: ~Copyable {
    private let pages: SharedPages
    private let references: [GrantReference]
    /// Pages that nobody has, the last of them first.
    private var free: [Int32]
    /// For a lent page, the next one of the same packet; -1: it is the last.
    private var next: [Int32]
    /// For each slot of the session, the first page of the packet there; -1: none.
    private var heads: [Int32]

    /// - Parameters:
    ///   - references: one for each of `pages`.
    ///   - slots: the capacity of the session (`NetChannel2Session`).
    public init(_ pages: SharedPages, references: [GrantReference], slots: Int) {
        precondition(references.count == pages.pageCount)
        self.pages = pages
        self.references = references
        free = (0..<Int32(references.count)).reversed()
        next = Array(repeating: -1, count: references.count)
        heads = Array(repeating: -1, count: slots)
    }

    /// Pages that nobody has.
    public var freeCount: Int { free.count }
    public var pageCount: Int { references.count }

    /// Copies `count` bytes into pages for the packet in this slot, and writes its fragments into the message. There are
    /// enough pages (`freeCount`).
    mutating func lend(
        toSlot slot: Int,
        _ memory: PrivatePages,
        at offset: Int,
        count: Int,
        message: some WritableWireBytes
    ) {
        precondition(heads[slot] < 0, "two packets in one slot")
        var (done, index) = (0, 0)
        var last: Int32 = -1
        while done < count {
            guard let page = free.popLast() else { preconditionFailure("no page left") }
            let part = min(NetChannel2Wire.pageSize, count &- done)
            pages.copyIn(
                at: Int(page) &* NetChannel2Wire.pageSize,
                count: part,
                from: memory,
                at: offset &+ done
            )
            let fragment = NetChannel2Fragment(
                size: UInt16(truncatingIfNeeded: part),
                offset: 0,
                reference: references[Int(page)]
            )
            NetChannel2Packet.encode(fragment, at: index, into: message)
            if last < 0 { heads[slot] = page } else { next[Int(last)] = page }
            next[Int(page)] = -1
            last = page
            done &+= part
            index &+= 1
        }
    }

    /// The packet in this slot is finished.
    mutating func takeBack(slot: Int) {
        var page = heads[slot]
        heads[slot] = -1
        while page >= 0 {
            free.append(page)
            page = next[Int(page)]
        }
    }
}
