// The journal file of one device: requests taken off its rings, for the successor of a killed worker.

internal import Glibc
internal import HostIO
internal import SharedRing
public import SystemPackage

/// How a journal's file is divided.
public struct JournalLayout: Hashable, Sendable {
    enum Form: UInt32 {
        /// `QueueJournal`: answered in any order.
        case slots = 0
        /// `RingJournal`: answered in ring order.
        case rings = 1
    }
    let form: Form
    let queueCount: Int
    let slotsPerQueue: Int
    /// Bytes of a slot's request.
    var requestBytes = QueueJournal.requestBytes
    /// Bytes of what a connection must remember beside its requests (`JournalState`).
    var stateBytes = 0

    /// One `QueueJournal` for each queue, and room for a `JournalState`.
    /// - Parameter requestBytes: of the largest request, a multiple of 4.
    public static func slots(
        _ slotsPerQueue: Int,
        queues: Int,
        requestBytes: Int = QueueJournal.requestBytes,
        stateBytes: Int = 0
    ) -> JournalLayout {
        precondition(requestBytes > 0 && requestBytes & 3 == 0)
        return JournalLayout(
            form: .slots,
            queueCount: queues,
            slotsPerQueue: slotsPerQueue,
            requestBytes: requestBytes,
            stateBytes: stateBytes
        )
    }
    /// One `RingJournal` for each ring, and room for a `JournalState`.
    public static func rings(_ rings: Int, slots: Int, stateBytes: Int = 0) -> JournalLayout {
        JournalLayout(form: .rings, queueCount: rings, slotsPerQueue: slots, stateBytes: stateBytes)
    }

    var queueBytes: Int {
        switch form {
        case .slots: QueueJournal.byteCount(slots: slotsPerQueue, requestBytes: requestBytes)
        case .rings: RingJournal.byteCount(slots: slotsPerQueue)
        }
    }
}

/// A file on tmpfs that holds every request of one connection from before it is run until its response is published.
///
/// It outlives the worker and the broker. It belongs to exactly one connection: `identity` names the domain, rings,
/// ports and ABI, and a journal with another identity is worthless and removed.
///
/// Layout: magic at 0, version at 8, queues at 12, slots per queue at 16, length of the identity at 20, form at 24,
/// bytes of state at 28, identity from 64; then from 4096 each queue (`QueueJournal` or `RingJournal`), behind one
/// another; then the state.
public final class RequestJournal: Sendable {
    private static let magic: UInt64 = 0x316C_6A62_6E65_78  // "xenbjl1"
    private static let version: UInt32 = 1
    private static let headerBytes = 4096
    private static let identityOffset = 64

    public let path: FilePath
    public let layout: JournalLayout
    private let pages: PrivatePages
    private let trace: (any JournalTrace)?

    /// Makes an empty journal for a new connection, in place of any older one.
    /// - Throws: the errors of open(2), posix_fallocate(3), mmap(2), and then there is no file; `E2BIG` if `identity` is
    ///   longer than 4032 bytes.
    public static func create(
        at path: FilePath,
        identity: String,
        layout: JournalLayout
    ) throws(Errno) -> RequestJournal {
        try create(at: path, identity: identity, layout: layout, trace: nil)
    }

    package static func create(
        at path: FilePath,
        identity: String,
        layout: JournalLayout,
        trace: (any JournalTrace)?
    ) throws(Errno) -> RequestJournal {
        let text = Array(identity.utf8)
        guard text.count <= headerBytes - identityOffset else { throw Errno.argListTooLong }
        try Files.makeDirectory(path.removingLastComponent(), permissions: [.ownerReadWriteExecute])
        remove(at: path)
        let file = try Files.open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW)
        defer { try? file.close() }
        let byteCount = size(layout)
        let pages: PrivatePages
        do throws(Errno) {
            pages = try PrivatePages(byteCount: byteCount, file: file)
        } catch {
            remove(at: path)
            throw error
        }
        let header = pages.slot(at: 0, byteCount: headerBytes)
        header.set32(version, at: 8)
        header.set32(UInt32(layout.queueCount), at: 12)
        header.set32(UInt32(layout.slotsPerQueue), at: 16)
        header.set32(UInt32(text.count), at: 20)
        header.set32(layout.form.rawValue, at: 24)
        header.set32(UInt32(layout.stateBytes), at: 28)
        pages.write(text, at: identityOffset)
        // The magic last: a journal without it was never finished.
        header.storeRelease(UInt32(truncatingIfNeeded: magic >> 32), at: 4)
        header.storeRelease(UInt32(truncatingIfNeeded: magic), at: 0)
        return RequestJournal(path, pages, layout, trace: trace)
    }

    /// Opens what a predecessor left for the same connection.
    /// - Returns: nil if there is none, or it belongs to another connection or version; then it is of no use.
    /// - Throws: the errors of open(2) but `ENOENT`, and of mmap(2): it may be there, and be opened later.
    public static func reopen(
        at path: FilePath,
        identity: String,
        layout: JournalLayout
    ) throws(Errno) -> RequestJournal? {
        try reopen(at: path, identity: identity, layout: layout, trace: nil)
    }

    package static func reopen(
        at path: FilePath,
        identity: String,
        layout: JournalLayout,
        trace: (any JournalTrace)?
    ) throws(Errno) -> RequestJournal? {
        let file: FileDescriptor
        do throws(Errno) {
            file = try Files.open(path, O_RDWR | O_NOFOLLOW)
        } catch {
            if error == .noSuchFileOrDirectory { return nil }
            throw error
        }
        defer { try? file.close() }
        let byteCount = size(layout)
        guard (try? file.seek(offset: 0, from: .end)) == Int64(byteCount) else { return nil }
        let pages = try PrivatePages(byteCount: byteCount, file: file)
        let header = pages.slot(at: 0, byteCount: headerBytes)
        let text = Array(identity.utf8)
        guard header.u64(0) == magic, header.u32(8) == version, header.u32(12) == UInt32(layout.queueCount),
            header.u32(16) == UInt32(layout.slotsPerQueue), header.u32(20) == UInt32(text.count),
            header.u32(24) == layout.form.rawValue, header.u32(28) == UInt32(layout.stateBytes)
        else { return nil }
        for (index, byte) in text.enumerated() where header.u8(identityOffset + index) != byte { return nil }
        return RequestJournal(path, pages, layout, trace: trace)
    }

    /// Removes a journal that is of no use any more; its mappings stay valid.
    public static func remove(at path: FilePath) { try? Files.remove(path) }

    /// The part of queue `index` of a journal of slots, to be owned by that queue alone.
    public func queue(_ index: Int) -> QueueJournal {
        precondition(layout.form == .slots)
        return QueueJournal(
            pages: pages,
            base: base(index),
            slotCount: layout.slotsPerQueue,
            requestBytes: layout.requestBytes,
            trace: trace
        )
    }

    /// The part of ring `index` of a journal of rings, to be owned by the queue that owns the ring.
    public func ring(_ index: Int) -> RingJournal {
        precondition(layout.form == .rings)
        return RingJournal(pages: pages, base: base(index), slotCount: layout.slotsPerQueue)
    }

    /// What the connection remembers beside its requests.
    public var state: JournalState {
        let base = RequestJournal.headerBytes + layout.queueCount * layout.queueBytes
        return JournalState(pages: pages, base: base, byteCount: layout.stateBytes)
    }

    private func base(_ index: Int) -> Int {
        precondition(index >= 0 && index < layout.queueCount)
        return RequestJournal.headerBytes + index * layout.queueBytes
    }

    private init(
        _ path: FilePath,
        _ pages: PrivatePages,
        _ layout: JournalLayout,
        trace: (any JournalTrace)?
    ) {
        self.path = path
        self.pages = pages
        self.layout = layout
        self.trace = trace
    }

    private static func size(_ layout: JournalLayout) -> Int {
        headerBytes + layout.queueCount * layout.queueBytes + JournalState.fileBytes(layout.stateBytes)
    }

}
