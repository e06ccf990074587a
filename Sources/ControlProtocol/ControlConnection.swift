// The server's end of one connection: bytes in, calls out.

/// One call as received, its parameters not decoded yet.
public struct ControlCall: Equatable, Sendable {
    /// The full name, e.g. `org.xenback.control.List`.
    public let method: String
    /// The caller wants no answer.
    public let isOneway: Bool
    /// The caller wants to switch to another protocol (`upgrade`): never granted.
    let wantsUpgrade: Bool
    /// The whole message without its NUL, for forwarding as it is.
    public let message: [UInt8]

    init(message: [UInt8]) throws(ControlError) {
        let head = try ControlMessage.decodeHead(of: message)
        self.method = head.method
        self.isOneway = head.oneway ?? false
        self.wantsUpgrade = head.upgrade ?? false
        self.message = message
    }
}

/// The state of one connection to the control socket, as a value without any I/O.
///
/// Varlink answers calls in the order they came. So the owner takes one call, answers it, takes the next, and reads
/// from the socket only when `next()` gave nil: this bounds what a client can make us buffer.
public struct ControlConnection: Sendable {
    /// What to do next.
    public enum Step: Equatable, Sendable {
        case answer(ControlCall)
        /// The client does not speak Varlink: send these bytes and close. Nothing follows.
        case close(reply: [UInt8])
    }

    /// Bytes that may be buffered for a client. The longest sensible call is a disk line.
    public static let messageLimit = 65536

    private var splitter: MessageSplitter
    private var violation: ControlError?
    private var isClosed = false

    public init(messageLimit: Int = ControlConnection.messageLimit) {
        self.splitter = MessageSplitter(limit: messageLimit)
    }

    /// Adds what was read from the socket.
    public mutating func receive(_ bytes: some Collection<UInt8>) {
        guard violation == nil, !isClosed else { return }
        do throws(MessageSplitter.MessageTooLong) {
            try splitter.append(bytes)
        } catch {
            violation = .malformedMessage(reason: "more than \(error.limit) bytes")
        }
    }

    /// The next step, or nil when more bytes are needed.
    public mutating func next() -> Step? {
        guard !isClosed else { return nil }
        if let message = splitter.next() {
            do throws(ControlError) {
                return .answer(try ControlCall(message: message))
            } catch {
                violation = error
            }
        }
        guard let violation else { return nil }
        isClosed = true
        return .close(reply: ControlMessage.reply(violation))
    }
}
