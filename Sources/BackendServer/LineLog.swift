// Log records as lines on stderr: one each, with domain and device always at the same place.

public import Logging
public import SystemPackage

/// Writes `info  7 vbd3/51712 text key=value` to stderr, a line for a record, in one write(2).
///
/// Under systemd (`JOURNAL_STREAM` is set) a line begins with its priority, `<6>`, and without the level's name
/// (sd-daemon(3)). The metadata keys `domain` and `device` are printed first and without their names.
public struct LineLog: LogHandler {
    public var metadata: Logger.Metadata = [:]
    public var metadataProvider: Logger.MetadataProvider?
    public var logLevel: Logger.Level
    private let forJournal: Bool
    private let output: FileDescriptor

    public init(level: Logger.Level, forJournal: Bool, output: FileDescriptor = .standardError) {
        logLevel = level
        self.forJournal = forJournal
        self.output = output
    }

    public subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    public func log(event: LogEvent) {
        var all = metadata
        if let provided = metadataProvider?.get() { all.merge(provided) { $1 } }
        if let own = event.metadata { all.merge(own) { $1 } }
        let line = LineLog.line(event.level, "\(event.message)", all, forJournal: forJournal)
        _ = try? output.writeAll(line.utf8)
    }

    /// The line, with its end. Control characters of the text, which may be a frontend's, are replaced.
    static func line(_ level: Logger.Level, _ text: String, _ all: Logger.Metadata, forJournal: Bool) -> String {
        var line = forJournal ? "<\(level.priority)>" : "\(level.rawValue) "
        for key in ["domain", "device"] {
            if let value = all[key] { line += "\(value) " }
        }
        line += text
        for (key, value) in all.sorted(by: { $0.key < $1.key }) where key != "domain" && key != "device" {
            line += " \(key)=\(value)"
        }
        var scalars = String.UnicodeScalarView()
        for scalar in line.unicodeScalars {
            scalars.append(scalar.properties.generalCategory == .control ? "?" : scalar)
        }
        return String(scalars) + "\n"
    }
}

extension Logger.Level {
    /// syslog(3).
    fileprivate var priority: Int {
        switch self {
        case .trace, .debug: 7
        case .info: 6
        case .notice: 5
        case .warning: 4
        case .error: 3
        case .critical: 2
        }
    }
}
