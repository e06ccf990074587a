// Log lines that are kept.

public import Logging
internal import Synchronization

/// Keeps log lines, so that a test can ask what was said.
public final class LogLines: Sendable {
    private let lines = Mutex<[String]>([])
    public init() {}
    public var all: [String] { lines.withLock { $0 } }
    public func contains(_ text: String) -> Bool { all.contains { $0.contains(text) } }
    public func count(_ text: String) -> Int { all.count { $0.contains(text) } }
    fileprivate func append(_ line: String) { lines.withLock { $0.append(line) } }

    public var logger: Logger {
        let lines = self
        return Logger(label: "test") { _ in Recorder(lines: lines) }
    }

    private struct Recorder: LogHandler {
        let lines: LogLines
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.debug
        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }
        func log(event: LogEvent) {
            let device = metadata["device"].map { "\($0)" } ?? "-"
            lines.append("\(device): \(event.message)")
        }
    }
}
