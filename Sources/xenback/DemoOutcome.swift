// What came of the demo: figures for people and for programs.

/// The result, as `--json` prints it.
struct DemoOutcome: Encodable {
    struct Phase: Encodable {
        var name: String
        var requests: Int
        var megabytesPerSecond: Double
        var medianMicroseconds: UInt32
        var p99Microseconds: UInt32
        var longestMicroseconds: UInt32
        /// Blocks and packets that were not what had been written.
        var wrongBlocks: Int
    }

    struct Kill: Encodable {
        /// `worker` or `broker`.
        var process: String
        /// The longest time without a completed request from the kill on.
        var pauseMicroseconds: Int64
    }

    /// Something that must be so, beside the checksums of the disk.
    struct Check: Encodable {
        var text: String
        var isRight: Bool
    }

    /// What one kind of device showed.
    struct Chapter {
        var phases: [Phase] = []
        var kills: [Kill] = []
        var checks: [Check] = []
    }

    /// What is not Xen's own here.
    let simulated = [
        "hypervisor", "guest memory and grants", "event channels", "XenStore", "guests", "the host's network",
        "the host's USB devices",
    ]
    var phases: [Phase]
    var kills: [Kill]
    var checks: [Check] = []
    var expectedChecksum: String
    var guestChecksum: String
    var fileChecksum: String
    var seconds: Double

    /// Nothing wrong was read, the guest, the file and our books agree, and every check is right.
    var isVerified: Bool {
        phases.allSatisfy { $0.wrongBlocks == 0 } && guestChecksum == expectedChecksum
            && fileChecksum == expectedChecksum && checks.allSatisfy(\.isRight)
    }

    mutating func add(_ chapter: Chapter) {
        phases += chapter.phases
        kills += chapter.kills
        checks += chapter.checks
    }

    private enum CodingKeys: String, CodingKey {
        case simulated, phases, kills, checks, expectedChecksum, guestChecksum, fileChecksum, seconds, isVerified
    }

    func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: CodingKeys.self)
        try container.encode(simulated, forKey: .simulated)
        try container.encode(phases, forKey: .phases)
        try container.encode(kills, forKey: .kills)
        try container.encode(checks, forKey: .checks)
        try container.encode(expectedChecksum, forKey: .expectedChecksum)
        try container.encode(guestChecksum, forKey: .guestChecksum)
        try container.encode(fileChecksum, forKey: .fileChecksum)
        try container.encode(seconds, forKey: .seconds)
        try container.encode(isVerified, forKey: .isVerified)
    }

    // MARK: for people

    var table: String {
        var lines = [Self.row(["", "requests", "MB/s", "p50 µs", "p99 µs", "max µs", "wrong"])]
        for phase in phases {
            lines.append(
                Self.row([
                    phase.name, "\(phase.requests)", Self.decimal(phase.megabytesPerSecond),
                    "\(phase.medianMicroseconds)", "\(phase.p99Microseconds)", "\(phase.longestMicroseconds)",
                    "\(phase.wrongBlocks)",
                ])
            )
        }
        lines.append("")
        for kill in kills {
            let pause = Self.decimal(Double(kill.pauseMicroseconds) / 1000)
            lines.append("\(kill.process) killed: longest pause for the guest \(pause) ms")
        }
        lines.append("")
        lines.append("checksum of what was written    \(expectedChecksum)")
        lines.append("checksum the guest read back    \(guestChecksum)")
        lines.append("checksum of the image file      \(fileChecksum)")
        for check in checks { lines.append((check.isRight ? "" : "WRONG: ") + check.text) }
        lines.append("")
        lines.append(
            isVerified
                ? "Verified: every request succeeded, every byte and packet is right (\(Self.decimal(seconds)) s)."
                : "WRONG: what was read is not what was written."
        )
        return lines.joined(separator: "\n") + "\n"
    }

    private static func row(_ cells: [String]) -> String {
        cells.enumerated().map { index, cell in
            let padding = String(repeating: " ", count: max(0, (index == 0 ? 24 : 9) - cell.count))
            return index == 0 ? cell + padding : padding + cell
        }.joined(separator: " ")
    }

    private static func decimal(_ value: Double) -> String {
        let tenths = Int((value * 10).rounded())
        return "\(tenths / 10).\(tenths % 10)"
    }
}
