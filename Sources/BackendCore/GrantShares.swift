// How many pages of guests each worker has mapped, in a file that they all map, so that the host's limit needs no
// messages.

internal import Glibc
internal import HostIO
internal import SharedRing
public import SystemPackage
public import XenWire

/// A word for each domain number: the pages that its worker holds or has set aside.
///
/// A word has one writer: the domain's worker, which holds the domain's lock, and the broker while there is none. So a
/// worker that is killed keeps its share until its successor, which has nothing mapped yet, or the broker sets it to 0.
public final class GrantShares: Sendable {
    private static let words = Int(DomainID.firstReserved)

    private let pages: PrivatePages

    /// Opens the file, made if there is none.
    /// - Throws: the errors of open(2), posix_fallocate(3) and mmap(2).
    public init(_ path: FilePath) throws(Errno) {
        let file = try Files.open(path, O_RDWR | O_CREAT | O_NOFOLLOW)
        defer { try? file.close() }
        pages = try PrivatePages(byteCount: GrantShares.words * 4, file: file)
    }

    /// Pages of all domains together.
    public var total: Int {
        var sum: UInt64 = 0
        pages.slot(at: 0, byteCount: GrantShares.words * 4).forEachU64(0, count: GrantShares.words / 2) { pair in
            sum &+= pair & 0xFFFF_FFFF
            sum &+= pair >> 32
        }
        return Int(sum)
    }

    public subscript(domain: DomainID) -> Int { Int(word(domain).u32(0)) }

    /// Sets what a domain holds. A `total` that is read afterwards has it: of two workers that take the last pages at the
    /// same time, each sees the other's.
    public func set(_ count: Int, of domain: DomainID) {
        word(domain).storeRelease(UInt32(clamping: count), at: 0)
        SharedPages.fence()
    }

    private func word(_ domain: DomainID) -> Slot { pages.slot(at: Int(domain.rawValue) * 4, byteCount: 4) }
}
