// A simulated domain's frames and its grant table, both memory that other processes can map.

internal import CLinux
internal import Glibc
internal import SharedRing
internal import SystemPackage

/// The memory of one domain.
///
/// The table holds 16 bytes per grant reference: flags in the low and the grantee's domain in the high half of the first
/// word, the frame in the second, as grant_entry_v1 (public/grant_table.h) has it. Only the machine writes it; everyone who
/// copies reads it. References below `firstReference` are never given out, as in Linux; their place holds the header words.
final class DomainMemory: Sendable {
    /// 1 GiB, of which only what is used exists.
    static let frameCount = 262_144
    static let entryCount = 131_072
    static let entrySize = 16
    static let firstReference: UInt32 = 8
    private static let deadWord = 0
    private static let copyFaultWord = 4

    let frames: Descriptor
    let tableFile: Descriptor
    private let table: SharedPages
    /// All frames, mapped when a copy first needs them.
    private let mapped = Lazily<SharedPages>()

    static func make(named name: String) throws(Errno) -> DomainMemory {
        try DomainMemory(
            frames: .memory(named: name, byteCount: frameCount * SharedPages.pageSize),
            tableFile: .memory(named: name + "-grants", byteCount: entryCount * entrySize)
        )
    }

    init(frames: Descriptor, tableFile: Descriptor) throws(Errno) {
        self.frames = frames
        self.tableFile = tableFile
        table = try SharedPages.mapping(tableFile, offset: 0, byteCount: Self.entryCount * Self.entrySize)
    }

    /// Set when the domain is destroyed: copies find a table that grants nothing.
    var isDead: Bool {
        get { table.loadAcquire(at: Self.deadWord) != 0 }
        set { table.storeRelease(newValue ? 1 : 0, at: Self.deadWord) }
    }

    /// A fault plan mentions copies: ask the machine before each batch.
    var hasCopyFaults: Bool {
        get { table.loadAcquire(at: Self.copyFaultWord) != 0 }
        set { table.storeRelease(newValue ? 1 : 0, at: Self.copyFaultWord) }
    }

    // MARK: grant entries

    struct Entry {
        static let permitAccess: UInt32 = 1  // GTF_permit_access
        static let readOnly: UInt32 = 4  // GTF_readonly
        static let typeMask: UInt32 = 3  // GTF_type_mask
        var word: UInt32
        var frame: UInt32
    }

    /// nil if there is no such reference.
    func entry(_ reference: UInt32) -> Entry? {
        guard reference >= Self.firstReference, reference < UInt32(Self.entryCount) else { return nil }
        let offset = Int(reference) * Self.entrySize
        let word = table.loadAcquire(at: offset)
        return Entry(word: word, frame: table.loadAcquire(at: offset + 4))
    }

    func setEntry(_ reference: UInt32, _ entry: Entry) {
        let offset = Int(reference) * Self.entrySize
        table.storeRelease(entry.frame, at: offset + 4)
        table.storeRelease(entry.word, at: offset)
    }

    // MARK: frames

    /// Frames by number, one behind the other. Runs of adjacent frames take one mapping each.
    /// - Parameter released: called once the last reference is gone and nothing is mapped any more.
    func map(
        _ numbers: [UInt32],
        writable: Bool,
        released: @escaping @Sendable () -> Void
    ) throws(Errno) -> SharedPages {
        try SharedPages.mapping(frames, frames: numbers, writable: writable, released: released)
    }

    /// All frames, for copies.
    func everything() throws(Errno) -> SharedPages {
        try mapped.get { () throws(Errno) in
            try SharedPages.mapping(frames, offset: 0, byteCount: Self.frameCount * SharedPages.pageSize)
        }
    }

    /// Gives frames back: they read as zero afterwards.
    func discard(first: UInt32, count: Int) {
        let offset = Int(first) * SharedPages.pageSize
        let mode = CInt(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)
        _ = fallocate(frames.raw, mode, offset, count * SharedPages.pageSize)
    }
}

extension SharedPages {
    /// Maps a part of a file, shared and writable.
    fileprivate static func mapping(_ file: Descriptor, offset: Int, byteCount: Int) throws(Errno) -> SharedPages {
        let address = unsafe mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_SHARED, file.raw, offset)
        guard let address = unsafe address, unsafe address != MAP_FAILED else { throw Errno(rawValue: errno) }
        nonisolated(unsafe) let base = unsafe address
        // SAFETY: the mapping just made; unmapped by the release alone.
        return unsafe SharedPages(base: base, byteCount: byteCount) { _ = unsafe munmap(base, byteCount) }
    }

    /// Maps single frames behind one another into a range reserved for them.
    fileprivate static func mapping(
        _ file: Descriptor,
        frames: [UInt32],
        writable: Bool,
        released: @escaping @Sendable () -> Void
    ) throws(Errno) -> SharedPages {
        let byteCount = frames.count * pageSize
        let reserved = unsafe mmap(nil, byteCount, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard let reserved = unsafe reserved, unsafe reserved != MAP_FAILED else { throw Errno(rawValue: errno) }
        nonisolated(unsafe) let base = unsafe reserved
        let protection = writable ? PROT_READ | PROT_WRITE : PROT_READ
        var index = 0
        while index < frames.count {
            var run = 1
            while index + run < frames.count, frames[index + run] == frames[index] &+ UInt32(run) { run += 1 }
            // SAFETY: inside the range reserved above, so MAP_FIXED replaces nothing else.
            let part = unsafe mmap(
                base + index * pageSize,
                run * pageSize,
                protection,
                MAP_SHARED | MAP_FIXED,
                file.raw,
                Int(frames[index]) * pageSize
            )
            guard unsafe part != MAP_FAILED else {
                let failure = Errno(rawValue: errno)
                _ = unsafe munmap(base, byteCount)
                throw failure
            }
            index += run
        }
        // SAFETY: the range reserved above; unmapped by the release alone.
        return unsafe SharedPages(base: base, byteCount: byteCount) {
            _ = unsafe munmap(base, byteCount)
            released()
        }
    }
}
