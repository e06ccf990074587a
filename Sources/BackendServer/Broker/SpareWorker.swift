// A worker that has started and waits to be told whom to serve, so that a takeover need not wait for a program's start.

internal import HostIO
internal import SystemPackage
internal import XenWire

/// A started process that serves nobody yet. It ends by itself when this object is gone.
final class SpareWorker: Sendable {
    let process: ChildProcess
    private let input: OpenFile

    /// Starts one.
    /// - Parameter command: program and arguments; it reads the domain's number from standard input.
    /// - Throws: the errors of pipe2(2) and those of `ChildProcess.init(spawning:)`.
    init(_ command: [String]) throws(Errno) {
        let (reading, writing) = try Files.pipe()
        input = writing
        process = try ChildProcess(spawning: command, input: reading)
    }

    /// Tells it whom to serve; it is an ordinary worker from then on.
    /// - Throws: `EPIPE` if it has ended.
    func serve(_ domain: DomainID) throws(Errno) { try Files.write("\(domain)\n", to: input) }

    /// In the spare itself: waits to be told whom to serve.
    /// - Returns: nil if it is not needed: the broker is gone, or needs no spare any more.
    static func awaitDomain() throws(Errno) -> DomainID? {
        guard let domain = try Files.line(of: .standardInput, limit: 16).flatMap({ DomainID(text: $0) }) else {
            return nil
        }
        ProcessTitle.replace(WorkerLine.spare, with: "\(domain)")
        return domain
    }
}
