// The client's end of one connection, for callers that may block.

internal import HostIO
public import SystemPackage

/// Why a call was not answered, or the error it was answered with.
public enum ControlClientError: Error, Equatable, Sendable, CustomStringConvertible {
    /// Nobody listens on the socket.
    case notRunning(socket: String)
    case permissionDenied(socket: String)
    /// The call went out and no answer came in time.
    case timedOut(Duration)
    /// The daemon closed the connection before it answered.
    case connectionLost
    case failed(Errno)
    /// The daemon's answer is an error.
    case refused(ControlError)

    /// What happened and what to do about it.
    public var description: String {
        switch self {
        case .notRunning(let socket):
            "xenbackd is not running (nobody listens on \(socket)): systemctl start xenbackd"
        case .permissionDenied(let socket): "permission denied on \(socket): be root, or the user xenbackd runs as"
        case .timedOut(let time):
            "no answer from xenbackd within \(time.components.seconds) s: journalctl -u xenbackd may tell why"
        case .connectionLost: "xenbackd went away before it answered: journalctl -u xenbackd may tell why"
        case .failed(let errno): "cannot talk to xenbackd: \(errno)"
        case .refused(let error): error.description.printable
        }
    }
}

/// A connection to a control socket. Every call blocks the thread until it is answered.
public struct ControlClient: ~Copyable {
    /// A longer answer is not from xenbackd.
    static let replyLimit = 64 << 20

    private let socket: FileDescriptor
    private let path: String
    private var splitter = MessageSplitter(limit: ControlClient.replyLimit)

    /// - Parameter path: of the broker's or a worker's socket.
    public init(path: String = ControlInterface.defaultSocketPath) throws(ControlClientError) {
        self.path = path
        do throws(Errno) {
            self.socket = try UnixSocket.connect(to: FilePath(path))
        } catch {
            switch error {
            case .noSuchFileOrDirectory, .connectionRefused: throw .notRunning(socket: path)
            case .permissionDenied: throw .permissionDenied(socket: path)
            default: throw .failed(error)
            }
        }
    }

    deinit { try? socket.close() }

    /// Calls and waits.
    ///
    /// - Parameter timeout: for the whole answer. After a timeout the connection must not be used any more.
    public mutating func call<Verb: ControlVerb>(
        _ verb: Verb,
        timeout: Duration = .seconds(60)
    ) throws(ControlClientError) -> Verb.Reply {
        let deadline = ContinuousClock.now + timeout
        do throws(Errno) {
            var unsent = ControlMessage.call(verb)[...]
            while !unsent.isEmpty { unsent = unsent.dropFirst(try UnixSocket.send(unsent, to: socket)) }
        } catch {
            // A daemon that refuses a connection says why before it closes: that answer can still be read.
            guard error == .brokenPipe else { throw .failed(error) }
        }
        let message = try receive(until: deadline, timeout: timeout)
        do throws(ControlError) {
            return try ControlMessage.decodeReply(to: Verb.self, from: message)
        } catch {
            throw error == .permissionDenied ? .permissionDenied(socket: path) : .refused(error)
        }
    }

    private mutating func receive(
        until deadline: ContinuousClock.Instant,
        timeout: Duration
    ) throws(ControlClientError) -> [UInt8] {
        while true {
            if let message = splitter.next() { return message }
            let left = ContinuousClock.now.duration(to: deadline)
            guard left > .zero else { throw .timedOut(timeout) }
            do throws(Errno) {
                // Rounded up, and in slices: no duration is too long for poll(2)'s milliseconds.
                let slice = Int32(min(left.components.seconds, 3600) * 1000 + 1000)
                let exact = left < .seconds(2) ? Int32(left / .milliseconds(1)) + 1 : slice
                guard try UnixSocket.wait(for: socket, milliseconds: exact) else { continue }
                guard let bytes = try UnixSocket.receive(from: socket) else { continue }
                guard !bytes.isEmpty else { throw Errno.connectionReset }
                do throws(MessageSplitter.MessageTooLong) {
                    try splitter.append(bytes)
                } catch {
                    throw Errno.outOfRange
                }
            } catch {
                throw error == .connectionReset ? .connectionLost : .failed(error)
            }
        }
    }
}
