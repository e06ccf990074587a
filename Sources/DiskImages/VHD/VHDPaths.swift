// Paths of images and their parents: made canonical, and relative to each other.

internal import CLinux
internal import Glibc
internal import SystemPackage

package enum VHDPaths {
    /// The path without links, `.` and `..`; nil with `errno` if there is nothing.
    package static func canonical(_ path: String) throws(VHDFailure) -> String {
        var buffer = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
        // SAFETY: realpath writes PATH_MAX bytes at most.
        guard unsafe realpath(path, &buffer) != nil else {
            throw VHDFailure(path, "cannot be found", Errno(rawValue: errno))
        }
        return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// The canonical path of a file that need not be there; its directory must.
    package static func canonicalTarget(_ path: String) throws(VHDFailure) -> String {
        let slash = path.lastIndex(of: "/")
        let folder = slash.map { $0 == path.startIndex ? "/" : String(path[..<$0]) } ?? "."
        let name = slash.map { path[path.index(after: $0)...] } ?? path[...]
        let base = try canonical(folder)
        return base == "/" ? "/\(name)" : "\(base)/\(name)"
    }

    package static func folder(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    package static func name(of path: String) -> String { path.split(separator: "/").last.map(String.init) ?? path }

    /// The way from one file's directory to another file; both canonical.
    package static func relative(from child: String, to parent: String) -> String {
        let here = child.split(separator: "/").dropLast()
        let there = parent.split(separator: "/")
        let common = zip(here, there.dropLast()).prefix { $0 == $1 }.count
        let up = Array(repeating: Substring(".."), count: here.count - common)
        return (up + there.dropFirst(common)).joined(separator: "/")
    }

    /// When a file was last changed; what the header of its child remembers.
    package static func changeTime(_ path: String) throws(VHDFailure) -> Int64 {
        var status = stat()
        guard unsafe stat(path, &status) == 0 else { throw VHDFailure(path, "cannot be found", Errno(rawValue: errno)) }
        return Int64(status.st_mtim.tv_sec)
    }

    /// Its bytes, of a file or a device; nil if it cannot be opened.
    package static func byteCount(_ path: String) -> UInt64? {
        (try? VHDFile.storage(path, isWritable: false))?.byteCount
    }

    static func isReadable(_ path: String) -> Bool { unsafe access(path, R_OK) == 0 }
}
