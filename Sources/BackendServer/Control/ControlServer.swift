// The control socket on the loop: connections, their calls one at a time, answers from the dispatch table.

internal import ControlProtocol
internal import HostIO
internal import Hypervisor
internal import Logging
internal import SystemPackage

/// Listens on a unix socket and answers Varlink calls of root and of the user we run as. Confined to its loop. Its owner holds
/// the lock of the process whose socket it is.
final class ControlServer: @unchecked Sendable {
    /// Simultaneous connections; a further one is closed immediately.
    static let connectionLimit = 64
    /// A client that does not read its answer is dropped after this time.
    static let sendTime: Duration = .seconds(10)

    // Loop-confined: every method but init says so.
    private let loop: EventLoop
    private let path: FilePath
    private let dispatch: ControlDispatch
    private let log: Logger
    private var listener: FileDescriptor?
    private var watch: DescriptorWatch?
    private var connections = 0

    init(at path: FilePath, on loop: EventLoop, dispatch: ControlDispatch, log: Logger) {
        self.path = path
        self.loop = loop
        self.dispatch = dispatch
        self.log = log
    }

    /// Starts listening; on the loop. A failure is logged, and the service goes on without a control socket.
    func begin() {
        do {
            try listen()
        } catch {
            log.error("no control socket at \(path): \(error)")
        }
    }

    private func listen() throws(Errno) {
        precondition(loop.isOnLoop && listener == nil)
        let socket = try UnixSocket.listen(at: path, isOurs: true)
        listener = socket
        let watch = DescriptorWatch(socket.rawValue, on: loop) { [weak self] in self?.accept() }
        self.watch = watch
        watch.begin()
    }

    /// Takes no further connections and removes the socket; on the loop.
    func end() {
        watch?.cancel()
        watch = nil
        guard let socket = listener else { return }
        listener = nil
        try? Files.remove(path)
        try? socket.close()
    }

    private func accept() {
        guard let listener else { return }
        do throws(Errno) {
            while let socket = try UnixSocket.accept(from: listener) { admit(socket) }
        } catch {
            log.warning("control socket: cannot accept: \(error)")
        }
    }

    private func admit(_ socket: FileDescriptor) {
        guard let peer = try? UnixSocket.peer(of: socket), peer.isRootOrOwner else {
            _ = try? UnixSocket.send(ControlMessage.reply(ControlError.permissionDenied)[...], to: socket)
            log.warning("control socket: a call of another user was refused")
            return close(socket)
        }
        guard connections < ControlServer.connectionLimit else {
            log.warning("control socket: too many connections; one was refused")
            return close(socket)
        }
        connections += 1
        Task(executorPreference: loop) {
            await self.serve(socket)
            self.loop.isOnLoop ? self.left(socket) : self.loop.perform { self.left(socket) }
        }
    }

    private func left(_ socket: FileDescriptor) {
        connections -= 1
        close(socket)
    }

    private func close(_ socket: FileDescriptor) { try? socket.close() }

    /// One connection: reads only when the calls it has sent are answered.
    private func serve(_ socket: FileDescriptor) async {
        let readable = WatchSignal()
        let watch = DescriptorWatch(socket.rawValue, on: loop) { readable.raise() }
        watch.begin()
        defer { watch.cancel() }
        var wakes = readable.events.makeAsyncIterator()
        var connection = ControlConnection()
        do throws(Errno) {
            while true {
                switch connection.next() {
                case .answer(let call):
                    if let reply = await dispatch.answer(call) {
                        try await loop.send(reply, to: socket, within: ControlServer.sendTime)
                    }
                case .close(let reply):
                    return try await loop.send(reply, to: socket, within: ControlServer.sendTime)
                case nil:
                    if let bytes = try UnixSocket.receive(from: socket) {
                        if bytes.isEmpty { return }
                        connection.receive(bytes)
                    } else {
                        await wakes.next()
                    }
                }
            }
        } catch {
            log.debug("control socket: a client went away: \(error)")
        }
    }
}
