// What `params` of a disk names: words with a colon after each, then the image's path.

/// The image of a disk as its line writes it (xl-disk-configuration(5), `target`): `/images/a.img`, `loop0`,
/// `aio:/images/a.img`, `shared:/dev/vg/cluster`.
public struct DiskTarget: Hashable, Sendable {
    /// Absolute: a name without `/` at its beginning is looked for in `/dev`, as the manual has it.
    public let path: String
    /// The path as it was written.
    public let name: String
    /// `shared:`: other guests may write the image too, and the administrator takes responsibility. It means the same
    /// as xm's mode `w!`, which xl refuses.
    public let isShared: Bool

    /// Prefixes for raw images, whatever serves them: libxl writes `aio` and `raw`, xm's lines have the others.
    private static let plainWords: Set<Substring> = ["aio", "raw", "file", "phy", "tap", "tap2", "tapdisk", "ioemu"]
    private static let formats: Set<Substring> = ["vhd", "vpc", "qcow", "qcow2", "qed", "vmdk", "vdi"]

    /// - Returns: nil for an empty drive: nothing, or words and nothing behind them.
    public init?(parsing params: String) throws(DiskTargetFault) {
        var rest = params[...]
        var isShared = false
        while let word = DiskTarget.word(at: rest) {
            switch word {
            case "shared": isShared = true
            case _ where DiskTarget.plainWords.contains(word): break
            case _ where DiskTarget.formats.contains(word): throw .format(String(word))
            default: throw .unknown(String(word))
            }
            rest = rest[word.endIndex...].dropFirst()
        }
        guard !rest.isEmpty else { return nil }
        name = String(rest)
        path = rest.first == "/" ? name : "/dev/\(name)"
        self.isShared = isShared
    }

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
    /// A format other than raw.
    case format(String)
    /// A word that means nothing.
    case unknown(String)

    public var description: String {
        switch self {
        case .format(let word): "target '\(word):…': format \(word) is not served: only raw files and devices are"
        case .unknown(let word):
            "target '\(word):…': nothing is called '\(word)' here; write the path alone, or 'shared:' before it"
        }
    }
}
