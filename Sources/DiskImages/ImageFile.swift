// An image's file for parsers and repairs: ordinary reads and writes, away from the loops.

internal import CLinux
internal import Glibc
public import HostIO
public import ImageFormats
public import SystemPackage

/// A file opened a second time, through the page cache and at any byte: what reads headers and repairs tables knows no
/// alignment. What it wrote is in the file when a call returns.
public struct ImageFile: ImageTarget {
    private let file: OpenFile
    public let byteCount: UInt64

    /// - Parameter file: the open and locked one, whose access it has.
    public init(beside file: OpenFile, byteCount: UInt64, writable: Bool) throws(Errno) {
        self.file = try OpenFile(path: "/proc/self/fd/\(file.descriptor)", flags: writable ? O_RDWR : O_RDONLY)
        self.byteCount = byteCount
    }

    public func read(at offset: UInt64, count: Int) throws(Errno) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var done = 0
        while done < count {
            let moved = unsafe bytes.withUnsafeMutableBytes { buffer in
                // SAFETY: `done` is below the buffer's count.
                unsafe pread(
                    file.descriptor,
                    buffer.baseAddress?.advanced(by: done),
                    count - done,
                    off_t(clamping: offset) + off_t(done)
                )
            }
            if moved == 0 { break }
            if moved < 0, errno != EINTR { throw Errno(rawValue: errno) }
            done += max(moved, 0)
        }
        return bytes
    }

    public func write(_ bytes: [UInt8], at offset: UInt64) throws(Errno) {
        var done = 0
        while done < bytes.count {
            let moved = unsafe bytes.withUnsafeBytes { buffer in
                // SAFETY: `done` is below the buffer's count.
                unsafe pwrite(
                    file.descriptor,
                    buffer.baseAddress?.advanced(by: done),
                    bytes.count - done,
                    off_t(clamping: offset) + off_t(done)
                )
            }
            if moved < 0, errno != EINTR { throw Errno(rawValue: errno) }
            done += max(moved, 0)
        }
    }

    public func flush() throws(Errno) {
        let status = file.synchronizeNow()
        if status < 0 { throw Errno(rawValue: -status) }
    }
}
