// Grants that stay mapped between requests (blkif.h, feature-persistent): a bounded cache that unmaps what is idle.

public import SharedRing
public import XenWire

/// Mapped pages by grant reference, least recently used first. One queue owns one cache.
///
/// The cache holds the only reference to each mapping, so dropping an entry unmaps it (XSA-371): by age, by eviction,
/// or with the cache. Data is copied in and out within a turn, so an entry is never in use when it is dropped.
public struct PersistentGrantCache: ~Copyable {
    /// Linux blkback's bound, which frontends are written against (xen-blkback `max_persistent_grants`).
    public static let defaultLimit = 1056

    private struct Entry {
        var reference: UInt32
        var pages: SharedPages?
        var lastUse: UInt64
        var older: Int32
        var newer: Int32
    }

    public let limit: Int
    private var places: [UInt32: Int32] = [:]
    private var entries: [Entry] = []
    private var free: [Int32] = []
    private var oldest: Int32 = -1
    private var newest: Int32 = -1

    public init(limit: Int = PersistentGrantCache.defaultLimit) { self.limit = limit }

    public var count: Int { places.count }
    public var isEmpty: Bool { places.isEmpty }
    public var isFull: Bool { places.count >= limit }

    /// The page behind `reference`, if it is mapped; it becomes the youngest entry.
    /// - Parameter now: nanoseconds of a monotonic clock.
    public mutating func lookup(_ reference: GrantReference, now: UInt64) -> SharedPages? {
        guard let place = places[reference.rawValue] else { return nil }
        entries[Int(place)].lastUse = now
        if place != newest {
            unlink(place)
            linkNewest(place)
        }
        return entries[Int(place)].pages
    }

    /// When the least recently used entry was last used; nil if the cache is empty.
    public var oldestUse: UInt64? { oldest < 0 ? nil : entries[Int(oldest)].lastUse }

    /// Keeps a page that was just mapped. A full cache drops its oldest entry.
    public mutating func insert(_ reference: GrantReference, _ pages: SharedPages, now: UInt64) {
        guard limit > 0, places[reference.rawValue] == nil else { return }
        if isFull { dropOldest() }
        let entry = Entry(reference: reference.rawValue, pages: pages, lastUse: now, older: -1, newer: -1)
        let place: Int32
        if let reused = free.popLast() {
            place = reused
            entries[Int(place)] = entry
        } else {
            place = Int32(entries.count)
            entries.append(entry)
        }
        places[reference.rawValue] = place
        linkNewest(place)
    }

    /// Unmaps all that was last used before `time`.
    /// - Returns: how many.
    @discardableResult
    public mutating func release(unusedSince time: UInt64) -> Int {
        var released = 0
        while let use = oldestUse, use < time {
            dropOldest()
            released += 1
        }
        return released
    }

    /// Unmaps everything.
    public mutating func removeAll() {
        places = [:]
        entries = []
        free = []
        oldest = -1
        newest = -1
    }

    private mutating func dropOldest() {
        let place = oldest
        guard place >= 0 else { return }
        unlink(place)
        places[entries[Int(place)].reference] = nil
        entries[Int(place)].pages = nil
        free.append(place)
    }

    private mutating func linkNewest(_ place: Int32) {
        entries[Int(place)].older = newest
        entries[Int(place)].newer = -1
        if newest >= 0 { entries[Int(newest)].newer = place } else { oldest = place }
        newest = place
    }

    private mutating func unlink(_ place: Int32) {
        let older = entries[Int(place)].older
        let newer = entries[Int(place)].newer
        if older >= 0 { entries[Int(older)].newer = newer } else { oldest = newer }
        if newer >= 0 { entries[Int(newer)].older = older } else { newest = older }
    }
}
