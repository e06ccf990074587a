// What a connection must remember beside its requests, for a successor: settings that the frontend made once.

internal import SharedRing

/// A few bytes that are replaced atomically: after a kill there are either the old bytes or the new, never a mixture.
///
/// Two copies follow a word that says which of them is valid.
public struct JournalState: Sendable {
    private let pages: PrivatePages
    private let base: Int
    /// Bytes that can be kept.
    public let byteCount: Int
    private static let headerBytes = 64

    static func fileBytes(_ byteCount: Int) -> Int { byteCount == 0 ? 0 : headerBytes + 2 * byteCount }

    init(pages: PrivatePages, base: Int, byteCount: Int) {
        self.pages = pages
        self.base = base
        self.byteCount = byteCount
    }

    /// Keeps `bytes` (at most `byteCount`). Not thread-safe.
    public func save(_ bytes: [UInt8]) {
        precondition(bytes.count <= byteCount && byteCount > 0)
        let word = pages.slot(at: base, byteCount: 12)
        let next = (word.loadAcquire(at: 0) & 1) ^ 1
        pages.write(bytes, at: place(next))
        word.storeRelease(UInt32(bytes.count), at: 4 + 4 * Int(next))
        word.storeRelease(next, at: 0)
    }

    /// What was kept last; empty if nothing was.
    public func load() -> [UInt8] {
        guard byteCount > 0 else { return [] }
        let word = pages.slot(at: base, byteCount: 12)
        let current = word.loadAcquire(at: 0) & 1
        let count = min(Int(word.loadAcquire(at: 4 + 4 * Int(current))), byteCount)
        let slot = pages.slot(at: place(current), byteCount: count)
        return (0..<count).map { slot.u8($0) }
    }

    private func place(_ copy: UInt32) -> Int { base + JournalState.headerBytes + Int(copy) * byteCount }
}
