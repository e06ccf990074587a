// What a VHD lies on, for tools that may wait: a file or a device.

internal import CLinux
internal import Glibc
internal import HostIO
internal import ImageFormats
internal import SystemPackage

/// Bytes that tools read and write. One thread uses it at a time.
protocol VHDStorage: AnyObject, ImageTarget {
    /// A device, whose size is given: the footer is in its last sector, and nothing is cut off.
    var isDevice: Bool { get }
    /// Makes a range read as zeros, with space for it reserved where that can be done.
    func reserve(_ range: DiskRange) throws(Errno)
    func truncate(to byteCount: UInt64) throws(Errno)
}

/// A storage as parsers see it.
struct VHDSource: ImageSource {
    let storage: any VHDStorage
    var byteCount: UInt64 { storage.byteCount }
    func read(at offset: UInt64, count: Int) throws(Errno) -> [UInt8] { try storage.read(at: offset, count: count) }
}

/// An open file.
final class VHDFileStorage: VHDStorage {
    let file: OpenFile
    let isDevice: Bool
    /// A file or a block device, and no directory, pipe or terminal.
    let isImage: Bool

    init(_ file: OpenFile) throws(Errno) {
        self.file = file
        var facts = linux_file_facts()
        let status = unsafe linux_file_facts(file.descriptor, &facts)
        if status != 0 { throw Errno(rawValue: status) }
        isDevice = facts.mode & 0o170000 == 0o060000
        isImage = isDevice || facts.mode & 0o170000 == 0o100000
    }

    private static func lastError() -> Errno { Errno(rawValue: errno) }

    var byteCount: UInt64 { UInt64(max(0, lseek(file.descriptor, 0, SEEK_END))) }

    func read(at offset: UInt64, count: Int) throws(Errno) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var done = 0
        while done < count {
            let place = off_t(clamping: offset) + off_t(done)
            // SAFETY: the buffer is `bytes`, of which `done..<count` is filled at most.
            let moved = unsafe bytes.withUnsafeMutableBytes { buffer in
                unsafe pread(file.descriptor, buffer.baseAddress.map { unsafe $0 + done }, count - done, place)
            }
            if moved == 0 { break }
            if moved > 0 { done += moved } else if errno != EINTR { throw VHDFileStorage.lastError() }
        }
        return bytes
    }

    func write(_ bytes: [UInt8], at offset: UInt64) throws(Errno) {
        var done = 0
        while done < bytes.count {
            let place = off_t(clamping: offset) + off_t(done)
            // SAFETY: the buffer is `bytes`, of which `done..<count` is read at most.
            let moved = unsafe bytes.withUnsafeBytes { buffer in
                unsafe pwrite(file.descriptor, buffer.baseAddress.map { unsafe $0 + done }, bytes.count - done, place)
            }
            if moved == 0 { throw .noSpace }
            if moved > 0 { done += moved } else if errno != EINTR { throw VHDFileStorage.lastError() }
        }
    }

    func flush() throws(Errno) { if fdatasync(file.descriptor) < 0 { throw VHDFileStorage.lastError() } }

    func reserve(_ range: DiskRange) throws(Errno) {
        if !isDevice {
            let status = linux_reserve_zeros(
                file.descriptor,
                Int64(clamping: range.start),
                Int64(clamping: range.count)
            )
            if status == 0 { return }
            if status != EOPNOTSUPP { throw Errno(rawValue: status) }
        }
        var next = range.start
        while next < range.end {
            let count = min(1 << 20, range.end - next)
            try write([UInt8](repeating: 0, count: Int(count)), at: next)
            next += count
        }
    }

    func truncate(to byteCount: UInt64) throws(Errno) {
        if isDevice { return }
        if ftruncate(file.descriptor, off_t(clamping: byteCount)) < 0 { throw VHDFileStorage.lastError() }
    }
}
