// The command line of a worker: written by the broker, read by the program before anything else.

public import Logging
public import XenWire

/// A worker's options; all but `domain` are the broker's own.
///
/// The program parses this line itself and leaves ArgumentParser to people, since that takes 8 of the 13 million
/// instructions of a worker's start, and a guest waits for it at a takeover.
public struct WorkerLine: Equatable, Sendable {
    /// nil, written `spare`: standard input will tell, once there is a domain to serve (`SpareWorker`).
    public var domain: DomainID?
    /// The placeholder for a domain that is not known yet; as long as the longest number, which replaces it in ps(1).
    public static let spare = "spare"
    public var config: String?
    public var runDirectory: String?
    public var logLevel: Logger.Level?

    public init(domain: DomainID?, config: String? = nil, runDirectory: String? = nil, logLevel: Logger.Level? = nil) {
        self.domain = domain
        self.config = config
        self.runDirectory = runDirectory
        self.logLevel = logLevel
    }

    /// The arguments after the program's name.
    public var words: [String] {
        var words = ["--domain", domain.map { "\($0)" } ?? WorkerLine.spare]
        if let config { words += ["--config", config] }
        if let runDirectory { words += ["--run-directory", runDirectory] }
        if let logLevel { words += ["--log-level", logLevel.rawValue] }
        return words
    }

    /// Reads what `words` wrote, in any order.
    /// - Returns: nil for everything else, right or wrong: ArgumentParser deals with that.
    public init?(_ words: [String]) {
        guard let at = words.firstIndex(of: "--domain"), words.count % 2 == 0, words.indices.contains(at + 1)
        else { return nil }
        let domain = DomainID(text: words[at + 1])
        if domain == nil, words[at + 1] != WorkerLine.spare { return nil }
        self.init(domain: domain)
        for index in stride(from: 0, to: words.count, by: 2) {
            let value = words[index + 1]
            switch words[index] {
            case "--domain" where index == at: break
            case "--config": config = value
            case "--run-directory": runDirectory = value
            case "--log-level":
                logLevel = Logger.Level(rawValue: value)
                if logLevel == nil { return nil }
            default: return nil
            }
        }
    }
}
