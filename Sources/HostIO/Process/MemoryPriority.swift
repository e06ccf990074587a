// How likely a victim this process is when the host runs out of memory.

public import SystemPackage

/// `/proc/self/oom_score_adj` (proc(5)): from -1000 (never) to 1000 (first). Children inherit it.
public enum MemoryPriority {
    private static let path: FilePath = "/proc/self/oom_score_adj"

    /// The score as it is; nil if it cannot be read.
    public static var score: Int? {
        guard let bytes = try? Files.contents(of: path, limit: 32) else { return nil }
        return Int(String(decoding: bytes.prefix { $0 != 0x0a }, as: UTF8.self))
    }

    /// Makes this process at least as likely a victim as `score` says. That needs no privilege; the opposite would.
    /// - Throws: the errors of open(2) and write(2).
    public static func raise(to score: Int) throws(Errno) {
        guard let now = self.score, now < score else { return }
        try Files.write("\(score)\n", to: path)
    }
}
