// What a worker was doing for which device, in a file that outlives it: whom to suspect when it dies.

internal import Glibc
internal import HostIO
public import SharedRing
public import SystemPackage

/// The marks of one worker's devices: a file that the worker maps and writes, and the broker reads after its death.
///
/// Each device has an entry with a busy byte per lane (0: its lifecycle; 1 + queue: that queue's turns), a word that
/// says whether it got anything done since it was attached, and the broker's verdict: crashes and exclusion. A store
/// to it costs what a store costs; nothing here is ever written to a disk (the run directory is a tmpfs).
public final class CrashMarks: Sendable {
    /// Devices that fit; further ones go unmarked, so a crash of theirs is nobody's.
    public static let capacity = 512
    @inlinable static var entryBytes: Int { 128 }
    @inlinable static var laneCount: Int { 32 }

    private let pages: PrivatePages

    /// Opens the marks at `path`, made if there are none.
    /// - Throws: the errors of open(2), posix_fallocate(3) and mmap(2).
    public init(_ path: FilePath) throws(Errno) {
        let length = CrashMarks.capacity * CrashMarks.entryBytes
        let file = try Files.open(path, O_RDWR | O_CREAT | O_NOFOLLOW)
        defer { try? file.close() }
        pages = try PrivatePages(byteCount: length, file: file)
    }

    /// The mark of a device of this worker's domain, made if there is none; nil if the file is full.
    /// - Parameter name: kind and index, `vbd3/51712`; at most 64 bytes.
    public func mark(for name: String) -> DeviceCrashMark? {
        if let found = inUse.first(where: { $0.name == name }) { return found }
        guard name.utf8.count <= DeviceCrashMark.nameBytes, !name.isEmpty else { return nil }
        guard let index = (0..<CrashMarks.capacity).first(where: isFree) else { return nil }
        let free = entry(index)
        free.claim(name)
        return free
    }

    /// The marks in use.
    public var inUse: [DeviceCrashMark] {
        (0..<CrashMarks.capacity).compactMap { isFree($0) ? nil : entry($0) }
    }

    private func entry(_ index: Int) -> DeviceCrashMark {
        DeviceCrashMark(pages: pages, offset: index * CrashMarks.entryBytes)
    }

    private func isFree(_ index: Int) -> Bool {
        let slot = pages.slot(at: index * CrashMarks.entryBytes, byteCount: CrashMarks.entryBytes)
        return slot.u32(DeviceCrashMark.Field.nameLength) == 0
    }
}

/// One device's entry.
public final class DeviceCrashMark: Sendable {
    @usableFromInline
    enum Field {
        @inlinable static var progress: Int { 0 }
        static let crashes = 4
        static let excluded = 8
        static let nameLength = 12
        @inlinable static var lanes: Int { 16 }
        static let name = 48
    }
    static let nameBytes = 64

    @usableFromInline let pages: PrivatePages
    @usableFromInline let offset: Int

    init(pages: PrivatePages, offset: Int) {
        self.pages = pages
        self.offset = offset
    }

    @inlinable var slot: Slot { pages.slot(at: offset, byteCount: CrashMarks.entryBytes) }

    // MARK: the worker's half

    /// Code of this device begins to run: a turn of a queue (lane 1 + its number), or an attach (lane 0). Lanes from
    /// 32 on share.
    @inlinable public func begin(lane: Int = 0) { slot.set8(1, at: Field.lanes + lane % CrashMarks.laneCount) }
    /// Does it run now?
    @inlinable func isBusy(lane: Int) -> Bool { slot.u8(Field.lanes + lane % CrashMarks.laneCount) != 0 }
    /// It has come back.
    @inlinable public func end(lane: Int = 0) { slot.set8(0, at: Field.lanes + lane % CrashMarks.laneCount) }
    /// The device answered a request: whatever kills the worker next is not the third of a row.
    @inlinable public func progressed() { slot.set32(1, at: Field.progress) }

    /// To be called by a worker that takes the device over: its own life begins with no lane busy, no progress.
    public func reset() {
        let slot = slot
        slot.set32(0, at: Field.progress)
        for lane in 0..<CrashMarks.laneCount { slot.set8(0, at: Field.lanes + lane) }
    }

    // MARK: the broker's half

    /// Did its code run when the worker died?
    public var isBusy: Bool {
        let slot = slot
        return (0..<CrashMarks.laneCount).contains { slot.u8(Field.lanes + $0) != 0 }
    }
    public var hasProgressed: Bool { slot.u32(Field.progress) != 0 }
    /// Deaths in a row that this device is suspected of.
    public var crashes: UInt32 {
        get { slot.u32(Field.crashes) }
        set { slot.set32(newValue, at: Field.crashes) }
    }
    /// Closed for good; workers leave it alone.
    public var isExcluded: Bool {
        get { slot.u32(Field.excluded) != 0 }
        set { slot.set32(newValue ? 1 : 0, at: Field.excluded) }
    }
    /// The toolstack made the device anew: its past does not count.
    public func pardon() {
        isExcluded = false
        crashes = 0
    }
    /// Kind and index; empty if the entry is free.
    public var name: String {
        let slot = slot
        let length = min(Int(slot.u32(Field.nameLength)), DeviceCrashMark.nameBytes)
        return String(decoding: (0..<length).map { slot.u8(Field.name + $0) }, as: UTF8.self)
    }
    /// Forgets the device.
    public func free() {
        pages.zero(at: offset, count: CrashMarks.entryBytes)
    }

    fileprivate func claim(_ name: String) {
        free()
        let slot = slot
        for (index, byte) in name.utf8.enumerated() { slot.set8(byte, at: Field.name + index) }
        slot.set32(UInt32(name.utf8.count), at: Field.nameLength)
    }
}
