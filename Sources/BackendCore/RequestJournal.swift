// The journal file of one device: requests taken off its rings, for the successor of a killed worker.

internal import Glibc
internal import HostIO
internal import SharedRing
public import SystemPackage

/// A file on tmpfs that holds every request of one connection from before it is run until its response is published.
///
/// It outlives the worker and the broker. It belongs to exactly one connection: `identity` names the domain, rings,
/// ports and ABI, and a journal with another identity is worthless and removed.
///
/// Layout: magic at 0, version at 8, queues at 12, slots per queue at 16, length of the identity at 20, identity from
/// 64; then from 4096 each queue (`QueueJournal`), behind one another.
public final class RequestJournal: Sendable {
    private static let magic: UInt64 = 0x316C_6A62_6E65_78  // "xenbjl1"
    private static let version: UInt32 = 1
    private static let headerBytes = 4096
    private static let identityOffset = 64

    public let path: FilePath
    public let queueCount: Int
    public let slotsPerQueue: Int
    private let pages: PrivatePages
    private let trace: (any JournalTrace)?

    /// Makes an empty journal for a new connection, in place of any older one.
    /// - Throws: the errors of open(2), ftruncate(2), mmap(2); `E2BIG` if `identity` is longer than 4032 bytes.
    public static func create(
        at path: FilePath,
        identity: String,
        queueCount: Int,
        slotsPerQueue: Int
    ) throws(Errno) -> RequestJournal {
        try create(at: path, identity: identity, queueCount: queueCount, slotsPerQueue: slotsPerQueue, trace: nil)
    }

    package static func create(
        at path: FilePath,
        identity: String,
        queueCount: Int,
        slotsPerQueue: Int,
        trace: (any JournalTrace)?
    ) throws(Errno) -> RequestJournal {
        let text = Array(identity.utf8)
        guard text.count <= headerBytes - identityOffset else { throw Errno.argListTooLong }
        try Files.makeDirectory(path.removingLastComponent(), permissions: [.ownerReadWriteExecute])
        remove(at: path)
        let file = try open(path, options: [.create, .exclusiveCreate])
        defer { try? file.close() }
        let byteCount = size(queueCount: queueCount, slotsPerQueue: slotsPerQueue)
        guard ftruncate(file.rawValue, off_t(byteCount)) == 0 else { throw Errno(rawValue: errno) }
        let pages = try PrivatePages(byteCount: byteCount, file: file)
        let header = pages.slot(at: 0, byteCount: headerBytes)
        header.set32(version, at: 8)
        header.set32(UInt32(queueCount), at: 12)
        header.set32(UInt32(slotsPerQueue), at: 16)
        header.set32(UInt32(text.count), at: 20)
        pages.write(text, at: identityOffset)
        // The magic last: a journal without it was never finished.
        header.storeRelease(UInt32(truncatingIfNeeded: magic >> 32), at: 4)
        header.storeRelease(UInt32(truncatingIfNeeded: magic), at: 0)
        return RequestJournal(path, pages, queueCount: queueCount, slotsPerQueue: slotsPerQueue, trace: trace)
    }

    /// Opens what a predecessor left for the same connection.
    /// - Returns: nil if there is none, or it belongs to another connection or version; then it is of no use.
    public static func reopen(
        at path: FilePath,
        identity: String,
        queueCount: Int,
        slotsPerQueue: Int
    ) -> RequestJournal? {
        guard let file = try? open(path, options: []) else { return nil }
        defer { try? file.close() }
        let byteCount = size(queueCount: queueCount, slotsPerQueue: slotsPerQueue)
        guard (try? file.seek(offset: 0, from: .end)) == Int64(byteCount),
            let pages = try? PrivatePages(byteCount: byteCount, file: file)
        else { return nil }
        let header = pages.slot(at: 0, byteCount: headerBytes)
        let text = Array(identity.utf8)
        guard header.u64(0) == magic, header.u32(8) == version, header.u32(12) == UInt32(queueCount),
            header.u32(16) == UInt32(slotsPerQueue), header.u32(20) == UInt32(text.count)
        else { return nil }
        for (index, byte) in text.enumerated() where header.u8(identityOffset + index) != byte { return nil }
        return RequestJournal(path, pages, queueCount: queueCount, slotsPerQueue: slotsPerQueue, trace: nil)
    }

    /// Removes a journal that is of no use any more; its mappings stay valid.
    public static func remove(at path: FilePath) { try? Files.remove(path) }

    /// The part of queue `index`, to be owned by that queue alone.
    public func queue(_ index: Int) -> QueueJournal {
        precondition(index >= 0 && index < queueCount)
        let base = RequestJournal.headerBytes + index * QueueJournal.byteCount(slots: slotsPerQueue)
        return QueueJournal(pages: pages, base: base, slotCount: slotsPerQueue, trace: trace)
    }

    private init(
        _ path: FilePath,
        _ pages: PrivatePages,
        queueCount: Int,
        slotsPerQueue: Int,
        trace: (any JournalTrace)?
    ) {
        self.path = path
        self.pages = pages
        self.queueCount = queueCount
        self.slotsPerQueue = slotsPerQueue
        self.trace = trace
    }

    private static func size(queueCount: Int, slotsPerQueue: Int) -> Int {
        headerBytes + queueCount * QueueJournal.byteCount(slots: slotsPerQueue)
    }

    private static func open(_ path: FilePath, options: FileDescriptor.OpenOptions) throws(Errno) -> FileDescriptor {
        do {
            let all = options.union([.closeOnExec, .noFollow])
            return try FileDescriptor.open(path, .readWrite, options: all, permissions: [.ownerReadWrite])
        } catch let error as Errno {
            throw error
        } catch {
            throw Errno.ioError
        }
    }
}
