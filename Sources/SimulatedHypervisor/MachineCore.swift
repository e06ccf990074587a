// The machine's moving parts: one thread for each connection, one for each listening socket, one lock.

internal import Glibc
internal import Hypervisor
internal import Synchronization
internal import SystemPackage
internal import XenWire

/// What `SimulatedMachine` owns and its threads share. Threads end when their sockets do.
final class MachineCore: Sendable {
    let state = Mutex(MachineState())
    private let listeners = Mutex<[MachineSocket]>([])
    /// xenstored is silent until this instant.
    private let storeSilence = Mutex<ContinuousClock.Instant?>(nil)

    /// Serves one connection on a thread of its own.
    func serve(_ socket: MachineSocket) throws(Errno) {
        try startThread { self.run(socket) }
    }

    func listen(at path: String) throws(Errno) {
        let listener = try MachineSocket.listening(at: path)
        listeners.withLock { $0.append(listener) }
        try startThread {
            while let socket = try? listener.accept() { try? self.serve(socket) }
        }
    }

    func silenceStore(for duration: Duration) {
        storeSilence.withLock { $0 = ContinuousClock.now + duration }
    }

    /// Stops listening and ends all connections.
    func shutDown() {
        for listener in listeners.withLock({ $0 }) { listener.shutDown() }
        for session in state.withLock({ Array($0.sessions.values) }) { session.socket.shutDown() }
    }

    // MARK: a connection's thread

    private func run(_ socket: MachineSocket) {
        guard let session = welcome(socket) else { return }
        while let message = socket.receive() {
            let reply = answer(message, session)
            guard (try? socket.send(reply.message.bytes, reply.descriptors)) != nil else { break }
        }
        state.withLock { $0.end(session.id) }
    }

    /// The first call of a connection says which domain it speaks for.
    private func welcome(_ socket: MachineSocket) -> MachineState.Session? {
        guard let message = socket.receive() else { return nil }
        var reply = MachineReply()
        do throws(Errno) {
            var reader = MessageReader(message.bytes)
            guard SimulatedCall(rawValue: try reader.integer()) == .attach else { throw .badMessage }
            let domain = try reader.domain()
            let session = try state.withLock { (state) throws(Errno) in
                try state.attach(state.nextSerial(), as: domain, over: socket)
            }
            reply.message.put(CInt(0))
            reply.descriptors = [session.watchEvent]
            if (try? socket.send(reply.message.bytes, reply.descriptors)) != nil { return session }
            state.withLock { $0.end(session.id) }
        } catch {
            reply.message.put(error.rawValue)
            try? socket.send(reply.message.bytes)
        }
        return nil
    }

    private func answer(_ message: MachineMessage, _ session: MachineState.Session) -> MachineReply {
        var status: CInt = 0
        var body = MachineReply()
        do throws(Errno) {
            var reader = MessageReader(message.bytes)
            guard let call = SimulatedCall(rawValue: try reader.integer()) else { throw .badMessage }
            if call.isStore { waitForStore() }
            body = try suffer(call, session)
            let answer = try state.withLock { (state) throws(Errno) in
                try state.answer(call, &reader, of: session.id)
            }
            if call != .copy { body = answer }
            guard body.message.bytes.count < MachineSocket.messageMaximum - 8 else { throw .argListTooLong }
        } catch {
            status = error.rawValue
            body = MachineReply()
        }
        var reply = MachineReply()
        reply.message.put(status)
        reply.message.append(body.message)
        reply.descriptors = body.descriptors
        return reply
    }

    private func waitForStore() {
        while let end = storeSilence.withLock({ $0 }), ContinuousClock.now < end { usleep(2000) }
    }

    /// Applies the fault plan to a call. For `.copy` the answer is the status it orders, 0 if none.
    private func suffer(_ call: SimulatedCall, _ session: MachineState.Session) throws(Errno) -> MachineReply {
        let effect = state.withLock { state in
            let effect = state.faults.take(call, by: session.caller.domain)
            if effect != nil { state.refreshCopyFaults() }
            return effect
        }
        var reply = MachineReply()
        var status: Int16 = 0
        switch effect {
        case .fail(let errno): throw errno
        case .delay(let milliseconds): usleep(milliseconds &* 1000)
        case .destroy(let domain):
            try? state.withLock { (state) throws(Errno) in try state.destroyDomain(domain) }
        case .copyStatus(let ordered): status = ordered
        case nil: break
        }
        reply.message.put(status)
        return reply
    }
}
