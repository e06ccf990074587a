// A bounded cache of a file's metadata pages, read by offset and changed in place.

public import SharedRing
public import SystemPackage

/// Pages of one image file. Clean pages are dropped when others need their place; a page that is being read or that has
/// changes to be written stays.
///
/// Values are big-endian, as they are in qcow2 and VHD. Every look-up may miss: then the caller asks the engine for the
/// page and tries again.
public final class MetadataCache {
    /// The usual page, and the largest.
    public static let pageBytes = 4096
    /// A plan may need some pages at once, and several plans run side by side.
    public static let minimumPages = 128

    /// The memory; page in place `n` begins at `n × pageSize`.
    public let pages: PrivatePages
    public let capacity: Int
    /// Bytes of a page: a cluster's, where clusters are smaller than the usual page, so that none holds two kinds.
    public let pageSize: Int
    var places: [Place]
    /// Open addressing by page number; an entry is a place + 1, 0 is empty. Twice as many as places.
    private var table: [Int32]
    private let mask: Int
    private var hand = 0
    private(set) var used = 0

    /// What is known of a page in memory.
    struct Place {
        var number = UInt64.max
        var isUsed = false
        var isValid = false
        var wasUsed = false
        /// Changes and loads that need it to stay.
        var pins: UInt32 = 0
        /// Counts changes; `written` is the last of them that is in the file, `writing` that of the write in flight.
        var version: UInt32 = 0
        var written: UInt32 = 0
        var writing: UInt32 = 0
        var isWriting = false
        /// The page's eighths that differ from the file, and are to be written: only these, since a page may also hold
        /// data, which is not kept up to date here.
        var dirty: UInt8 = 0
        /// Writes in flight, and why the first of them failed.
        var writesLeft = 0
        var failure: Errno?
        var isDirty: Bool { version != written }
    }

    /// - Parameter capacity: pages at most; at least `minimumPages` are taken.
    public init(capacity: Int, pageSize: Int = MetadataCache.pageBytes) throws(Errno) {
        precondition(pageSize >= 512 && pageSize <= MetadataCache.pageBytes)
        self.capacity = max(capacity, MetadataCache.minimumPages)
        self.pageSize = pageSize
        pages = try PrivatePages(byteCount: self.capacity * pageSize)
        places = Array(repeating: Place(), count: self.capacity)
        var size = 4
        while size < self.capacity * 2 { size *= 2 }
        table = Array(repeating: 0, count: size)
        mask = size - 1
    }

    // MARK: look-ups

    /// nil: the page is not in memory. `offset` is a multiple of 8.
    public func u64(at offset: UInt64) -> UInt64? {
        guard let slot = slot(offset, width: 8) else { return nil }
        return slot.u64(0).byteSwapped
    }

    public func u32(at offset: UInt64) -> UInt32? {
        guard let slot = slot(offset, width: 4) else { return nil }
        return slot.u32(0).byteSwapped
    }

    public func u16(at offset: UInt64) -> UInt16? {
        guard let slot = slot(offset, width: 2) else { return nil }
        return slot.u16(0).byteSwapped
    }

    public func u8(at offset: UInt64) -> UInt8? {
        guard let slot = slot(offset, width: 1) else { return nil }
        return slot.u8(0)
    }

    /// The aligned value's bytes; nil: not in memory. A value never crosses a page, since it is aligned.
    private func slot(_ offset: UInt64, width: UInt64) -> Slot? {
        precondition(offset & (width &- 1) == 0)
        guard let place = find(offset / UInt64(pageSize)), places[place].isValid else { return nil }
        places[place].wasUsed = true
        let inPage = Int(truncatingIfNeeded: offset) & (pageSize - 1)
        return pages.slot(at: place &* pageSize &+ inPage, byteCount: Int(truncatingIfNeeded: width))
    }

    // MARK: places

    private func home(_ number: UInt64) -> Int {
        Int(truncatingIfNeeded: (number &* 0x9E37_79B9_7F4A_7C15) >> 20) & mask
    }

    /// The place of a page, whether or not it has been read yet.
    func find(_ number: UInt64) -> Int? {
        var position = home(number)
        while table[position] != 0 {
            let place = Int(table[position]) &- 1
            if places[place].number == number { return place }
            position = (position &+ 1) & mask
        }
        return nil
    }

    /// Takes a place for a page that has none.
    /// - Returns: nil if all are pinned or dirty.
    func admit(_ number: UInt64) -> Int? {
        guard let place = freePlace() else { return nil }
        places[place] = Place()
        places[place].number = number
        places[place].isUsed = true
        places[place].wasUsed = true
        var position = home(number)
        while table[position] != 0 { position = (position &+ 1) & mask }
        table[position] = Int32(truncatingIfNeeded: place &+ 1)
        return place
    }

    private func freePlace() -> Int? {
        if used < capacity {
            // Places are handed out in order first, so that memory becomes resident as it is used.
            for _ in 0..<capacity {
                let place = hand
                hand = hand &+ 1 == capacity ? 0 : hand &+ 1
                if !places[place].isUsed {
                    used &+= 1
                    return place
                }
            }
        }
        for _ in 0..<2 * capacity {
            let place = hand
            hand = hand &+ 1 == capacity ? 0 : hand &+ 1
            if places[place].pins > 0 || places[place].isDirty || places[place].isWriting { continue }
            if places[place].wasUsed {
                places[place].wasUsed = false
                continue
            }
            unlink(places[place].number)
            return place
        }
        return nil
    }

    /// Drops a page.
    func remove(_ place: Int) {
        unlink(places[place].number)
        places[place] = Place()
        used &-= 1
    }

    /// Takes a page out of the table, and moves those up that had to give way to it.
    private func unlink(_ number: UInt64) {
        var position = home(number)
        while table[position] != 0, places[Int(table[position]) &- 1].number != number {
            position = (position &+ 1) & mask
        }
        guard table[position] != 0 else { return }
        var hole = position
        var next = (position &+ 1) & mask
        while table[next] != 0 {
            let wanted = home(places[Int(table[next]) &- 1].number)
            if (next &- wanted) & mask >= (next &- hole) & mask {
                table[hole] = table[next]
                hole = next
            }
            next = (next &+ 1) & mask
        }
        table[hole] = 0
    }

    /// Stores a value in a page in memory and notes that it is to be written.
    /// - Returns: what was there.
    func store(_ value: UInt64, width: Int, at inPage: Int, in place: Int) -> UInt64 {
        let slot = pages.slot(at: place &* pageSize &+ inPage, byteCount: width)
        let old: UInt64
        switch width {
        case 1:
            old = UInt64(slot.u8(0))
            slot.set8(UInt8(truncatingIfNeeded: value), at: 0)
        case 2:
            old = UInt64(slot.u16(0).byteSwapped)
            slot.set16(UInt16(truncatingIfNeeded: value).byteSwapped, at: 0)
        case 4:
            old = UInt64(slot.u32(0).byteSwapped)
            slot.set32(UInt32(truncatingIfNeeded: value).byteSwapped, at: 0)
        default:
            old = slot.u64(0).byteSwapped
            slot.set64(value.byteSwapped, at: 0)
        }
        places[place].dirty |= 1 << UInt8(truncatingIfNeeded: inPage / (pageSize / 8))
        places[place].version &+= 1
        return old
    }
}

extension MetadataCache {
    /// A part of a page was written beside the cache. The page stays, because the rest of it is in use: what was written
    /// there is zeroes or data, and not looked at before a table is made of it, which drops or re-reads the page.
    func markStale(_ place: Int, _ range: DiskRange) {
        let start = places[place].number &* UInt64(pageSize)
        let low = max(range.start, start) &- start
        let high = min(range.end, start &+ UInt64(pageSize)) &- start
        pages.zero(at: place &* pageSize &+ Int(low), count: Int(high &- low))
    }
}
