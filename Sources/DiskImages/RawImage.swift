// A raw image: a file or a block device that is the disk, opened, locked and measured.

internal import CLinux
internal import Glibc
public import HostIO
internal import Synchronization
internal import SystemPackage

/// An open raw image. The last reference closes it, and with it its lock.
///
/// Its facts do not change; `measuredAgain` makes another image of the same open file. Reads, writes and flushes go
/// to `file` by way of a loop; a transfer that is short or fails is explained by `newTrouble`.
public final class RawImage: Sendable {
    /// The name that it was opened by.
    public let path: String
    public let facts: ImageFacts
    /// Whether I/O goes past the page cache, and if not, why.
    public let directIO: DirectIO
    private let options: ImageOptions
    private let lease: ImageLease
    /// When each result of a transfer was last reported.
    private let lastTroubles = Mutex<[Int32: ContinuousClock.Instant]>([:])

    /// The open file; what holds it, holds the lock.
    public var file: OpenFile { lease.file }

    /// True if it was opened for reading only, so that even a bug of ours cannot write (XSA-142).
    public var isReadOnly: Bool { options.access == .readOnly }

    private init(_ path: String, _ options: ImageOptions, _ lease: ImageLease, _ facts: ImageFacts, _ direct: DirectIO)
    {
        self.path = path
        self.options = options
        self.lease = lease
        self.facts = facts
        directIO = direct
    }

    /// Opens, locks and measures an image. It may block: call it off the loops.
    /// - Throws: a failure that says what is wrong in words for an administrator; a lock is not waited for.
    public static func open(_ path: String, _ options: ImageOptions) throws(ImageFailure) -> RawImage {
        try open(try DiskSite.find(path), options, namesHolder: true)
    }

    /// The same for a path that was found already.
    /// - Parameter namesHolder: false to save the search for the process that has the lock.
    public static func open(
        _ site: DiskSite,
        _ options: ImageOptions,
        namesHolder: Bool
    ) throws(ImageFailure) -> RawImage {
        let probe = try ImageProbe(site, options, KernelStorage(), namesHolder: namesHolder)
        let facts = try probe.measure()
        let lease = ImageLease(file: probe.file, identity: probe.identity, owner: options.owner)
        return RawImage(site.name, options, lease, facts, probe.enableDirectIO(facts))
    }

    /// The same open image with its facts as they are now: it may have grown or shrunk. It may block for a moment.
    /// - Throws: a failure if its new size is not possible for a disk.
    public func measuredAgain() throws(ImageFailure) -> RawImage {
        let probe = try ImageProbe(path, options, reusing: file)
        return RawImage(path, options, lease, try probe.measure(), directIO)
    }

    /// Does `measuredAgain` on a helper thread.
    public func measuredAgain(on loop: EventLoop) async throws(ImageFailure) -> RawImage {
        try await loop.blocking { () throws(ImageFailure) in try self.measuredAgain() }
    }
}

// Operations that differ between files and devices. The rest are the loop's own, on `file`.
extension RawImage {
    /// Discards a range; afterwards it reads as zeroes for files, and is undefined for devices.
    ///
    /// Completes the slot with 0 or a negated `errno`: `EOPNOTSUPP` where the facts say that it cannot.
    public func discard(
        offset: UInt64,
        length: UInt64,
        secure: Bool,
        on loop: EventLoop,
        target: TargetID,
        slot: UInt32
    ) {
        if facts.kind == .file && !secure {
            loop.punchHole(file, offset: offset, length: length, target: target, slot: slot)
            return
        }
        let isPossible = secure ? facts.canDiscardSecurely : facts.canDiscard
        let file = file
        loop.offload(
            { isPossible ? linux_block_discard(file.descriptor, offset, length, secure ? 1 : 0) : -EOPNOTSUPP },
            target: target,
            slot: slot
        )
    }

    /// `trouble`, once per cause in ten minutes: a full disk fails every write of a busy guest, and one line is enough.
    /// From any thread.
    public func newTrouble(_ operation: String, offset: UInt64, result: Int32) -> String? {
        let now = ContinuousClock.now
        let isNew = lastTroubles.withLock { last in
            if let before = last[result], before.duration(to: now) < .seconds(600) { return false }
            last[result] = now
            return true
        }
        return isNew ? trouble(operation, offset: offset, result: result) : nil
    }

    /// One sentence for the log about a failed or short transfer.
    /// - Parameter result: as in its completion.
    public func trouble(_ operation: String, offset: UInt64, result: Int32) -> String {
        let place = "\(path): \(operation) at byte \(offset)"
        if result >= 0 {
            return "\(place) ended after \(result) bytes: the image is shorter than the disk; was it truncated?"
        }
        switch Errno(rawValue: -result) {
        case .noSpace: return "\(place): its file system is full; the guest gets I/O errors until there is room"
        case .diskQuotaExceeded: return "\(place): the quota of its owner is used up"
        case .ioError: return "\(place): the host's storage reports an I/O error; the kernel's log says more"
        case .fileTooLarge: return "\(place): beyond the largest file that is allowed here"
        case let error: return "\(place) failed: \(error)"
        }
    }
}
