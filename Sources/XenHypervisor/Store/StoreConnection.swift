// One connection to xenstored: a descriptor, one request at a time, events in between.

internal import CLinux
internal import CXen
internal import Glibc
internal import HostIO
internal import SystemPackage

/// Why a request failed.
enum StoreFault: Error, Equatable {
    /// xenstored answered with an error.
    case refused(Errno)
    /// The connection broke, was silent for too long, or was given up: it cannot be used any more.
    case lost(Errno)
}

/// A connection, used by the store's thread only.
///
/// Spoken without libxenstore, because that library closes a broken descriptor from two threads at once, does not wake
/// those that sleep on its pipe, queues watch events without limit, and switches SIGPIPE for the whole process at each
/// call.
final class StoreConnection {
    let descriptor: CInt
    private let isSocket: Bool
    private let mailbox: StoreMailbox
    private let watches: StoreWatches
    private var inbox = StoreInbox()
    private var chunk = [UInt8](repeating: 0, count: 16384)

    /// Connects to `path`: a socket of xenstored, or the kernel's device.
    init(path: String, mailbox: StoreMailbox, watches: StoreWatches) throws(Errno) {
        (descriptor, isSocket) = try StoreConnection.open(path)
        self.mailbox = mailbox
        self.watches = watches
    }

    deinit { close(descriptor) }

    /// Sends a request and waits for its answer.
    func request(_ message: StoreMessage, until deadline: ContinuousClock.Instant) throws(StoreFault) -> [UInt8] {
        try send(message.encoded, until: deadline)
        while true {
            let answer = try nextAnswer(until: deadline)
            if answer.kind == StoreMessage.Kind.error { throw .refused(StoreMessage.errno(answer.payload)) }
            guard answer.kind == message.kind else { throw .lost(.protocolError) }
            return answer.payload
        }
    }

    /// Takes the events that are there, without waiting: those behind the last answer, and one read's worth.
    func takeEvents() throws(StoreFault) {
        _ = try receive()
        while let message = try nextMessage() {
            guard message.kind == StoreMessage.Kind.event else { throw .lost(.protocolError) }
        }
    }

    private func nextAnswer(until deadline: ContinuousClock.Instant) throws(StoreFault) -> StoreMessage {
        while true {
            while let message = try nextMessage() {
                if message.kind != StoreMessage.Kind.event { return message }
            }
            if try !receive() { try wait(for: POLLIN, until: deadline) }
        }
    }

    /// The next message of the inbox; an event is also reported.
    private func nextMessage() throws(StoreFault) -> StoreMessage? {
        let message: StoreMessage?
        do throws(Errno) { message = try inbox.next() } catch { throw .lost(error) }
        if let message, message.kind == StoreMessage.Kind.event {
            let parts = StoreMessage.strings(message.payload)
            if parts.count >= 2 { watches.raise(token: String(decoding: parts[1], as: UTF8.self)) }
        }
        return message
    }

    /// - Returns: whether any bytes came.
    private func receive() throws(StoreFault) -> Bool {
        while true {
            // SAFETY: the kernel writes at most chunk.count bytes into chunk.
            let count = unsafe chunk.withUnsafeMutableBytes { unsafe Glibc.read(descriptor, $0.baseAddress, $0.count) }
            if count > 0 {
                inbox.append(chunk[..<count])
                return true
            }
            if count == 0 { throw .lost(.connectionReset) }
            switch errno {
            case EAGAIN: return false
            case EINTR: continue
            default: throw .lost(Errno(rawValue: errno))
            }
        }
    }

    private func send(_ bytes: [UInt8], until deadline: ContinuousClock.Instant) throws(StoreFault) {
        var sent = 0
        while sent < bytes.count {
            // SAFETY: sent < bytes.count, and the kernel reads no more than the rest.
            let count = unsafe bytes.withUnsafeBytes { buffer in
                let rest = unsafe UnsafeRawBufferPointer(rebasing: buffer[sent...])
                return unsafe isSocket
                    ? unix_send(descriptor, rest.baseAddress, rest.count)
                    : Glibc.write(descriptor, rest.baseAddress, rest.count)
            }
            if count >= 0 {
                sent += count
            } else if errno == EAGAIN {
                try wait(for: POLLOUT, until: deadline)
            } else if errno != EINTR {
                throw .lost(Errno(rawValue: errno))
            }
        }
    }

    private func wait(for events: CInt, until deadline: ContinuousClock.Instant) throws(StoreFault) {
        guard mailbox.wait(for: descriptor, events: events, until: deadline) else { throw .lost(.canceled) }
        guard ContinuousClock.now < deadline else { throw .lost(.timedOut) }
    }

    private static func open(_ path: String) throws(Errno) -> (CInt, Bool) {
        var status = stat()
        guard unsafe stat(path, &status) == 0 else { throw Errno(rawValue: errno) }
        guard status.st_mode & S_IFMT == S_IFSOCK else {
            return (try HostDoor.open(FilePath(path), flags: O_RDWR | O_NONBLOCK), false)
        }
        let descriptor = unix_socket(1)
        guard descriptor >= 0 else { throw Errno(rawValue: errno) }
        // A unix socket connects at once, or fails with EAGAIN while xenstored sleeps and its backlog is full.
        guard HostDoor.enter(.xenStore(FilePath(path)), { unsafe unix_connect(descriptor, path) }) == 0 else {
            let error = errno
            close(descriptor)
            throw Errno(rawValue: error)
        }
        return (descriptor, true)
    }
}
