// The locks of an image: against a predecessor's last write, against other guests, and those shared with QEMU.

internal import CLinux
internal import Glibc
internal import HostIO
internal import SystemPackage

/// Byte ranges far behind any image's end, in which devices and guests have bytes of their own. All locks belong to the
/// open file that does the I/O: the kernel keeps them until its last request is done, even after a SIGKILL.
///
/// - A device's own byte, locked exclusively by whoever writes for it, in every mode: its successor waits for the last
///   write of its predecessor. Two `w!` guests have different bytes.
/// - A guest's byte among the readers, the writers or the sharers, locked shared; conflicts are checked afterwards, so
///   that of two that come at once at most one gets in.
/// - QEMU's bytes (block/file-posix.c: 100 + n, "I use permission n"; 200 + n, "nobody else may"), which ours must not
///   touch where the guest's device model opens the same image.
enum ImageLocks {
    private static let devices: Int64 = 0x4000_0000_0000_0000
    private static let readers: Int64 = 0x5000_0000_0000_0000
    private static let writers: Int64 = 0x6000_0000_0000_0000
    private static let sharers: Int64 = 0x7000_0000_0000_0000
    /// Bytes of each range.
    private static let rangeBytes: Int64 = 1 << 48

    /// QEMU's permissions (include/block/block-common.h), by number.
    private enum QEMU {
        static let used: Int64 = 100
        static let refused: Int64 = 200
        static let read: Int64 = 0
        static let write: Int64 = 1
        static let resize: Int64 = 3
        /// `WRITE`, `WRITE_UNCHANGED`, `RESIZE`.
        static let writes: ClosedRange<Int64> = 1...3
    }

    /// A name's place in a range: FNV-1a, folded to 48 bits, the same in every process and release.
    static func place(of name: String) -> Int64 {
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        for byte in name.utf8 { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01B3 }
        return Int64(truncatingIfNeeded: (hash ^ hash >> 48) & 0xFFFF_FFFF_FFFF)
    }

    private static func range(_ access: ImageOptions.Access) -> Int64 {
        switch access {
        case .readOnly: readers
        case .exclusive: writers
        case .shared: sharers
        }
    }

    /// Takes all locks that the options ask for, or throws and leaves them to be dropped with the file.
    /// - Parameter namesHolder: whether to look for the holder, which reads all of /proc/PID/fdinfo.
    static func take(
        _ file: OpenFile,
        _ path: String,
        _ options: ImageOptions,
        namesHolder: Bool
    ) throws(ImageFailure) {
        let taking = Taking(file: file, path: path, options: options, namesHolder: namesHolder)
        if options.access != .readOnly {
            try taking.lock(devices + place(of: options.owner), exclusively: true)
        }
        try taking.lock(range(options.access) + place(of: options.guest), exclusively: false)
        for other in [ImageOptions.Access.readOnly, .exclusive, .shared]
        where !SharingRules.permits(options.access, beside: .guest(other)) {
            try taking.refuseGuests(range(other))
        }
        if options.access == .shared { return }
        if options.keepsQEMUOut { try taking.tellQEMU() }
        try taking.refuseQEMU()
    }

    /// One image, while its locks are taken.
    private struct Taking {
        let file: OpenFile
        let path: String
        let options: ImageOptions
        let namesHolder: Bool

        func lock(_ byte: Int64, exclusively: Bool) throws(ImageFailure) {
            switch Errno(rawValue: linux_lock_range(file.descriptor, exclusively ? 1 : 0, byte, 1)) {
            case Errno(rawValue: 0): return
            case .resourceTemporarilyUnavailable, .permissionDenied: throw locked(byte...byte)
            // A file system without locks: a shared image is not protected anyway.
            case _ where options.access == .shared: return
            case let error: throw ImageFailure(path, .system(error), cannotLock(error))
            }
        }

        private func cannotLock(_ error: Errno) -> String {
            "\(path): cannot be locked: \(error); target=shared:\(path) does without"
        }

        /// Refuses all of a range but our own guest's byte.
        func refuseGuests(_ base: Int64) throws(ImageFailure) {
            let own = base + ImageLocks.place(of: options.guest)
            for range in [base..<own, own + 1..<base + ImageLocks.rangeBytes] where !range.isEmpty {
                if try isLocked(range.lowerBound, range.upperBound - range.lowerBound) {
                    throw locked(range.lowerBound...range.upperBound - 1)
                }
            }
        }

        private func isLocked(_ start: Int64, _ length: Int64) throws(ImageFailure) -> Bool {
            let status = linux_is_locked_by_others(file.descriptor, start, length)
            guard status < 0 else { return status == 1 }
            let error = Errno(rawValue: -status)
            throw ImageFailure(path, .system(error), cannotLock(error))
        }

        /// Somebody has a lock there, and is looked for among the processes.
        private func locked(_ range: ClosedRange<Int64>) -> ImageFailure {
            let holders = namesHolder ? LockHolder.all(of: file) : []
            return .locked(path, by: holders.first { $0.holds(range) }?.holder)
        }

        // MARK: QEMU

        /// Takes QEMU's own locks for what we do, so that a QEMU started later refuses the image by itself.
        func tellQEMU() throws(ImageFailure) {
            let used = options.access == .readOnly ? [QEMU.read] : [QEMU.read, QEMU.write]
            for permission in used { try lock(QEMU.used + permission, exclusively: false) }
            for permission in [QEMU.write, QEMU.resize] { try lock(QEMU.refused + permission, exclusively: false) }
        }

        /// Checks QEMU's locks. The guest's own device model, which reads the image for firmware and boot loader until
        /// the guest's driver takes over, may hold them, and so may our own processes.
        func refuseQEMU() throws(ImageFailure) {
            let writes = QEMU.used + QEMU.writes.lowerBound...QEMU.used + QEMU.writes.upperBound
            let refuses = QEMU.refused + QEMU.write...QEMU.refused + QEMU.write
            for (range, use) in [
                (writes, OtherUse.program(writes: true, refusesWriters: false)),
                (refuses, .program(writes: false, refusesWriters: true)),
            ] where !SharingRules.permits(options.access, beside: use) {
                let length = range.upperBound - range.lowerBound + 1
                guard try isLocked(range.lowerBound, length) else { continue }
                let holders = LockHolder.all(of: file).filter { $0.holds(range) }
                let foreign = holders.first { !isOurs($0) }
                // No holder is visible: a process that is ending, or one of another namespace or host.
                if holders.isEmpty || foreign != nil { throw .locked(path, by: foreign?.holder) }
            }
        }

        private func isOurs(_ found: LockHolder.Found) -> Bool {
            if found.holdsOne(within: ImageLocks.readers...ImageLocks.sharers + ImageLocks.rangeBytes) { return true }
            return found.holder.domain != nil && found.holder.domain == options.domain
        }
    }
}
