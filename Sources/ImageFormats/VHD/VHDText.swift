// UTF-16 as VHDs store names in it, and the spellings of parents' paths.

/// The two byte orders that occur: big-endian in the header's name, little-endian in parent locators.
package enum UTF16Order { case big, little }

package enum VHDText {
    /// Decodes a name up to its first NUL or its end.
    /// - Returns: nil if it is no text: an odd byte, or half of a surrogate pair.
    package static func decode(_ bytes: [UInt8], _ order: UTF16Order) -> String? {
        var units: [UInt16] = []
        var place = 0
        while place < bytes.count {
            guard place + 1 < bytes.count else { return nil }
            let (first, second) = (UInt16(bytes[place]), UInt16(bytes[place + 1]))
            let unit = order == .big ? first << 8 | second : second << 8 | first
            if unit == 0 { break }
            units.append(unit)
            place += 2
        }
        return String(validating: units, as: UTF16.self)
    }

    package static func encode(_ text: String, _ order: UTF16Order) -> [UInt8] {
        text.utf16.flatMap { unit -> [UInt8] in
            let (high, low) = (UInt8(truncatingIfNeeded: unit >> 8), UInt8(truncatingIfNeeded: unit))
            return order == .big ? [high, low] : [low, high]
        }
    }

    /// Windows' path as one of ours: its drive is left out, backslashes are slashes.
    package static func path(ofWindows text: String) -> String {
        let bytes = Array(text.utf8)
        let hasDrive = bytes.count >= 2 && bytes[1] == 0x3A && (bytes[0] | 0x20 >= 0x61 && bytes[0] | 0x20 <= 0x7A)
        let path = (hasDrive ? bytes[2...] : bytes[...]).map { $0 == 0x5C ? 0x2F : $0 }
        return String(decoding: path, as: UTF8.self)
    }

    /// A path as Windows writes it; a relative one begins with `.\`.
    package static func windows(ofPath path: String) -> String {
        let relative = path.hasPrefix("/") || path.hasPrefix("./") ? path : "./" + path
        return String(decoding: relative.utf8.map { $0 == 0x2F ? 0x5C : $0 }, as: UTF8.self)
    }

    /// `file://` URLs: blktap writes the path as it is, others escape what is special in URLs. Both are tried, in this
    /// order.
    package static func paths(ofURL text: String) -> [String] {
        guard text.hasPrefix("file://") else { return [] }
        var path = String(text.dropFirst("file://".count))
        if path.hasPrefix("localhost/") { path = String(path.dropFirst("localhost".count)) }
        guard let plain = unescaped(path), plain != path else { return [path] }
        return [path, plain]
    }

    /// `%20` decoded. nil if the result is no text.
    private static func unescaped(_ text: String) -> String? {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            if byte == 0x25, rest.count >= 2, !rest.prefix(2).contains(0x2B),
                let code = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16)
            {
                bytes.append(code)
                rest = rest.dropFirst(2)
            } else {
                bytes.append(byte)
            }
        }
        return String(validating: bytes, as: UTF8.self)
    }
}
