// Paths as xenstored accepts them: canonical form, parents, and what a watch covers.

internal import SystemPackage
internal import XenWire

/// Rules for node names (docs/misc/xenstore.txt; xenstored_core.c, `is_valid_nodename`).
enum XenStorePath {
    /// Bytes of an absolute path (xs_wire.h, `XENSTORE_ABS_PATH_MAX`).
    static let absoluteMaximum = 3072
    /// Bytes of a path relative to a domain's home (xs_wire.h, `XENSTORE_REL_PATH_MAX`).
    static let relativeMaximum = 2048

    /// The absolute form of `text`, as `domain` means it.
    /// - Throws: `EINVAL` for characters, slashes and lengths that xenstored refuses.
    static func canonical(_ text: String, of domain: DomainID) throws(Errno) -> String {
        if text == "/" { return text }
        let relative = !text.hasPrefix("/")
        guard text.utf8.count <= (relative ? relativeMaximum : absoluteMaximum) else { throw .invalidArgument }
        guard !text.isEmpty, !text.hasSuffix("/"), !text.contains("//"), text.utf8.allSatisfy(isAllowed) else {
            throw .invalidArgument
        }
        return relative ? "/local/domain/\(domain)/\(text)" : text
    }

    /// The path to watch: special names are kept as they are.
    static func watchable(_ text: String, of domain: DomainID) throws(Errno) -> String {
        guard text.hasPrefix("@") else { return try canonical(text, of: domain) }
        guard text.utf8.count <= relativeMaximum, text.utf8.allSatisfy(isAllowed) else { throw .invalidArgument }
        return text
    }

    private static func isAllowed(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
        case 0x2D, 0x2F, 0x5F, 0x40: true  // - / _ @
        default: false
        }
    }

    /// The parent of a canonical path; nil for the root.
    static func parent(of path: String) -> String? {
        guard path != "/", let slash = path.utf8.lastIndex(of: 0x2F) else { return nil }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    /// The last name of a canonical path.
    static func name(of path: String) -> String {
        guard let slash = path.utf8.lastIndex(of: 0x2F) else { return path }
        return String(path[path.utf8.index(after: slash)...])
    }

    static func child(_ name: String, of path: String) -> String { path == "/" ? "/" + name : path + "/" + name }

    /// Whether a watch on `watched` covers `path`: the same node or one below it.
    static func covers(_ watched: String, _ path: String) -> Bool {
        if watched == path { return true }
        guard !path.hasPrefix("@") else { return false }
        return path.hasPrefix(watched == "/" ? "/" : watched + "/")
    }
}
