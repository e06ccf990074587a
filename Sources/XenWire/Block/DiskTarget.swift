// What `params` of a disk names: words with a colon after each, then the image's path.

/// The image of a disk as its line writes it (xl-disk-configuration(5), `target`): `/images/a.img`, `loop0`,
/// `aio:/images/a.img`, `vhd:/images/a.vhd`, `shared:/dev/vg/cluster`.
public struct DiskTarget: Hashable, Sendable {
    /// What the image's bytes mean. It comes from the line and never from the bytes: a guest can write into its raw
    /// image whatever another format begins with.
    public enum Format: String, Hashable, Sendable, CaseIterable {
        case raw, qcow2, vhd

        /// Whether disks of this format are served.
        public var isServed: Bool { self == .raw }
    }

    /// raw, if the line names none.
    public let format: Format
    /// Absolute: a name without `/` at its beginning is looked for in `/dev`, as the manual has it.
    public let path: String
    /// The path as it was written.
    public let name: String
    /// `shared:`: other guests may write the image too, and the administrator takes responsibility. It means the same
    /// as xm's mode `w!`, which xl refuses.
    public let isShared: Bool

    /// Prefixes that say nothing of the format: libxl writes `aio`, xm's lines have the others.
    private static let plainWords: Set<Substring> = ["aio", "file", "phy", "tap", "tap2", "tapdisk", "ioemu"]
    private static let otherFormats: Set<Substring> = ["vpc", "vhdx", "qcow", "qed", "vmdk", "vdi"]

    /// - Returns: nil for an empty drive: nothing, or words and nothing behind them.
    public init?(parsing params: String) throws(DiskTargetFault) {
        var rest = params[...]
        var isShared = false
        var format: Format?
        while let word = DiskTarget.word(at: rest) {
            switch word {
            case "shared": isShared = true
            case _ where DiskTarget.plainWords.contains(word): break
            case _ where DiskTarget.otherFormats.contains(word): throw .format(String(word))
            default:
                guard let named = Format(rawValue: String(word)) else { throw .unknown(String(word)) }
                if let format, format != named { throw .formats(format.rawValue, named.rawValue) }
                format = named
            }
            rest = rest[word.endIndex...].dropFirst()
        }
        guard !rest.isEmpty else { return nil }
        name = String(rest)
        path = rest.first == "/" ? name : "/dev/\(name)"
        self.isShared = isShared
        self.format = format ?? .raw
    }

    /// - Throws: where the format is not served.
    public func requireServed() throws(DiskTargetFault) { if !format.isServed { throw .format(format.rawValue) } }

    /// The words and the path as a line has them, without `shared:`.
    public var text: String { format == .raw ? name : "\(format.rawValue):\(name)" }

    /// Letters and digits up to a colon; a path that contains one begins with something else or has a `/` before it.
    private static func word(at text: Substring) -> Substring? {
        guard let colon = text.firstIndex(of: ":") else { return nil }
        let word = text[..<colon]
        guard let first = word.utf8.first, (0x61...0x7A).contains(first) else { return nil }
        let isWord = word.utf8.allSatisfy { (0x61...0x7A).contains($0) || (0x30...0x39).contains($0) }
        return isWord ? word : nil
    }
}

/// Why a target names no image that is served here.
public enum DiskTargetFault: Error, Hashable, Sendable, CustomStringConvertible {
    /// A format that is not served.
    case format(String)
    /// Two formats in one target.
    case formats(String, String)
    /// A word that means nothing.
    case unknown(String)

    public var description: String {
        switch self {
        case .format(let word): "target '\(word):…': format \(word) is not served: only raw files and devices are"
        case .formats(let first, let second):
            "target '\(first):\(second):…': two formats; name the one that the image has"
        case .unknown(let word):
            "target '\(word):…': nothing is called '\(word)' here; write the path alone, or 'shared:' before it"
        }
    }
}
