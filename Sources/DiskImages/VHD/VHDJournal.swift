// vhd-util's undo journal: what is put back if a resize does not end.

internal import Glibc
internal import HostIO
internal import ImageFormats
internal import SystemPackage

/// The undo journal (blktap's `libvhd-journal.h`): what every place that is written held before.
struct VHDJournal {
    private static let headerByteCount = 512
    private static let entryByteCount = 32
    /// As on blktap's machines, the header's last number is not big-endian.
    private static let endField = 56
    private static let cookie = Array("vjournal".utf8)
    private static let entryCookie: UInt64 = 0xAAAA_1234_4321_AAAA
    /// The largest piece that is read back.
    private static let entryLimit: UInt64 = 64 << 20

    /// Numbers of an entry's type.
    enum Kind: UInt32 {
        case footer = 1
        case footerCopy, header, locator, table, batmapHeader, batmap, data
    }

    let path: String
    private let storage: VHDFileStorage
    private var header: BigEndianBytes
    private var end: UInt64

    /// Begins an empty one, in a new file or on a device.
    init(creating path: String, identifier: VHDIdentifier, footerOffset: UInt64) throws(VHDFailure) {
        self.path = path
        do throws(Errno) {
            do throws(Errno) {
                storage = try VHDFileStorage(
                    try OpenFile(path: path, flags: O_RDWR | O_CREAT | O_EXCL, permissions: 0o644)
                )
            } catch .fileExists {
                storage = try VHDFileStorage(try OpenFile(path: path, flags: O_RDWR))
                guard storage.isDevice else { throw Errno.fileExists }
            }
        } catch { throw VHDFailure(path, "the journal cannot be made", error) }
        header = BigEndianBytes(zeros: VHDJournal.headerByteCount)
        header[0..<8] = VHDJournal.cookie
        header[8..<24] = identifier.bytes
        header[u64: 24] = footerOffset
        end = UInt64(VHDJournal.headerByteCount)
        try writeHeader()
    }

    init(opening path: String) throws(VHDFailure) {
        self.path = path
        do throws(Errno) {
            storage = try VHDFileStorage(try OpenFile(path: path, flags: O_RDWR))
            header = BigEndianBytes(
                try storage.read(at: 0, count: VHDJournal.headerByteCount),
                count: VHDJournal.headerByteCount
            )
        } catch { throw VHDFailure(path, "the journal cannot be read", error) }
        end = header[u64: VHDJournal.endField].byteSwapped
        guard header[0..<8] == VHDJournal.cookie, end <= storage.byteCount else {
            throw VHDFailure(path, .invalidArgument, "is no journal of vhd-util, or one that was cut")
        }
    }

    var identifier: VHDIdentifier { VHDIdentifier(header[8..<24]) }
    var footerOffset: UInt64 { header[u64: 24] }
    private var dataCount: UInt32 { header[u32: 32] }
    private var metadataCount: UInt32 { header[u32: 36] }

    private mutating func writeHeader() throws(VHDFailure) {
        header[u64: VHDJournal.endField] = end.byteSwapped
        do throws(Errno) { try storage.write(header.bytes, at: 0) } catch {
            throw VHDFailure(path, "the journal cannot be written", error)
        }
    }

    /// Notes what a place holds.
    mutating func add(_ kind: Kind, _ bytes: [UInt8], at offset: UInt64) throws(VHDFailure) {
        var entry = BigEndianBytes(zeros: VHDJournal.entryByteCount)
        entry[u64: 0] = VHDJournal.entryCookie
        entry[u32: 8] = kind.rawValue
        entry[u32: 12] = UInt32(truncatingIfNeeded: bytes.count)
        entry[u64: 16] = offset
        entry[u32: 24] = ~(BigEndianBytes.sum(entry.bytes) &+ BigEndianBytes.sum(bytes))
        do throws(Errno) { try storage.write(entry.bytes + bytes, at: end) } catch {
            throw VHDFailure(path, "the journal cannot be written", error)
        }
        let (countField, placeField) = kind == .data ? (32, 40) : (36, 48)
        if header[u32: countField] == 0 { header[u64: placeField] = end }
        header[u32: countField] += 1
        end += UInt64(VHDJournal.entryByteCount + bytes.count)
        // Whatever comes next, blocks are behind it.
        if kind != .data { header[u64: 40] = end }
        try writeHeader()
    }

    func synchronize() throws(VHDFailure) {
        do throws(Errno) { try storage.flush() } catch {
            throw VHDFailure(path, "the journal cannot be made durable", error)
        }
    }

    /// All entries in their order.
    /// - Throws: if one of them is not whole: then nothing may be put back.
    func entries() throws(VHDFailure) -> [(offset: UInt64, bytes: Range<UInt64>)] {
        var found: [(offset: UInt64, bytes: Range<UInt64>)] = []
        var place = UInt64(VHDJournal.headerByteCount)
        for _ in 0..<UInt64(dataCount) + UInt64(metadataCount) {
            let (head, bytes) = try entry(at: place)
            found.append((head[u64: 16], place + 32..<place + 32 + UInt64(bytes.count)))
            place += UInt64(VHDJournal.entryByteCount + bytes.count)
        }
        return found
    }

    private func entry(at place: UInt64) throws(VHDFailure) -> (BigEndianBytes, [UInt8]) {
        let broken = VHDFailure(path, .invalidArgument, "the journal is not whole at byte \(place)")
        let head = BigEndianBytes(try bytes(place..<place + 32), count: 32)
        let count = UInt64(head[u32: 12])
        guard head[u64: 0] == VHDJournal.entryCookie, count > 0, count % 512 == 0, count <= VHDJournal.entryLimit,
            place + 32 + count <= end
        else { throw broken }
        let bytes = try bytes(place + 32..<place + 32 + count)
        let sum = ~(head.bytes[..<24] + head.bytes[28...]).reduce(BigEndianBytes.sum(bytes)) { $0 &+ UInt32($1) }
        guard sum == head[u32: 24] else { throw broken }
        return (head, bytes)
    }

    func bytes(_ range: Range<UInt64>) throws(VHDFailure) -> [UInt8] {
        do throws(Errno) { return try storage.read(at: range.lowerBound, count: range.count) } catch {
            throw VHDFailure(path, "the journal cannot be read", error)
        }
    }

    /// All is done: nothing is to be put back any more.
    mutating func commit() throws(VHDFailure) {
        header[32..<56] = [UInt8](repeating: 0, count: 24)
        end = UInt64(VHDJournal.headerByteCount)
        try writeHeader()
        try synchronize()
    }

    /// Its image may be used again.
    func remove() { if !storage.isDevice { _ = unsafe unlink(path) } }
}
