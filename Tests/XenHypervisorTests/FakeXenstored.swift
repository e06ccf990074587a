// A xenstored for tests: the wire protocol over a real socket, and every kind of bad behaviour on demand.

import CLinux
import Glibc
import Synchronization
import SystemPackage

@testable import XenHypervisor

/// Serves a flat table of nodes: enough for the client's own behaviour, which is all that is tested with it.
final class FakeXenstored: Sendable {
    struct State {
        var nodes: [String: [UInt8]] = ["domid": Array("0".utf8)]
        /// Domains that have been introduced and do not die yet.
        var introduced: Set<String> = ["0"]
        /// We are dom0: told whom xenstored knows.
        var isPrivileged = true
        /// Answers to give instead of working, first come first served; by kind of request.
        var refusals: [UInt32: [String]] = [:]
        /// Requests of each kind so far.
        var requests: [UInt32: Int] = [:]
        /// Watches of the present connections.
        var watches: [(connection: CInt, path: String, token: String)] = []
        var connections: [CInt] = []
        var transactions: UInt32 = 0
        /// Drop the connection instead of answering the next request of this kind.
        var dropAt: UInt32?
        /// Send that many events before the next answer.
        var floodBeforeAnswer = 0
        var isFrozen = false
    }

    let path: String
    let state = Mutex(State())
    private let listener: CInt

    init() throws {
        path = "/tmp/xenback-fake-\(getpid())-\(UInt32.random(in: 0 ... .max))"
        listener = try FakeXenstored.listen(at: path)
        start()
    }

    deinit {
        shutdown(listener, Int32(SHUT_RDWR))
        unsafe unlink(path)
    }

    /// Ends all connections, as a restart does.
    func dropConnections() {
        for connection in state.withLock({ $0.connections }) { shutdown(connection, Int32(SHUT_RDWR)) }
    }

    /// Nobody can connect until `comeBack`.
    func goAway() {
        unsafe rename(path, path + ".away")
        dropConnections()
    }

    func comeBack() { unsafe rename(path + ".away", path) }

    /// A value that begins with `!` is an error instead: `!EACCES`.
    func set(_ node: String, _ bytes: [UInt8]) { state.withLock { $0.nodes[node] = bytes } }
    func count(_ kind: UInt32) -> Int { state.withLock { $0.requests[kind] ?? 0 } }

    /// Sends `count` events to every watch.
    func fire(_ count: Int = 1) {
        for watch in state.withLock({ $0.watches }) {
            for _ in 0..<count {
                send(
                    StoreMessage(kind: StoreMessage.Kind.event, payload: event(watch.path, watch.token)),
                    watch.connection
                )
            }
        }
    }

    private func event(_ path: String, _ token: String) -> [UInt8] { Array((path + "\0" + token + "\0").utf8) }

    private static func listen(at path: String) throws -> CInt {
        let listener = unix_socket(0)
        let bound = unsafe unix_bind(listener, path)
        guard bound == 0, Glibc.listen(listener, 16) == 0 else { throw Errno(rawValue: errno) }
        return listener
    }

    private func start() {
        let listener = listener
        run { [weak self] in
            while true {
                let connection = unix_accept(listener, 0)
                guard connection >= 0, let self else { return }
                state.withLock { $0.connections.append(connection) }
                run { [weak self] in self?.serve(connection) }
            }
        }
    }

    private func run(_ body: @escaping @Sendable () -> Void) {
        var thread = pthread_t()
        let box = unsafe Unmanaged.passRetained(Box(body)).toOpaque()
        _ = unsafe pthread_create(
            &thread,
            nil,
            { argument in
                unsafe Unmanaged<Box>.fromOpaque(argument!).takeRetainedValue().body()
                return nil
            },
            box
        )
        pthread_detach(thread)
    }

    private final class Box: Sendable {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }

    private func serve(_ connection: CInt) {
        var inbox = StoreInbox()
        var chunk = [UInt8](repeating: 0, count: 4096)
        receiving: while true {
            let count = unsafe read(connection, &chunk, 4096)
            guard count > 0 else { break }
            inbox.append(chunk[..<count])
            while let message = try? inbox.next() {
                while state.withLock({ $0.isFrozen }) { usleep(1000) }
                guard let answer = answer(message, connection) else { break receiving }
                send(answer, connection)
            }
        }
        state.withLock { state in
            state.connections.removeAll { $0 == connection }
            state.watches.removeAll { $0.connection == connection }
        }
        close(connection)
    }

    private func send(_ message: StoreMessage, _ connection: CInt) {
        let bytes = message.encoded
        _ = unsafe bytes.withUnsafeBytes {
            unsafe unix_send(connection, $0.baseAddress, $0.count)
        }
    }

    /// nil: hang up.
    private func answer(_ message: StoreMessage, _ connection: CInt) -> StoreMessage? {
        let words = StoreMessage.strings(message.payload).map { String(decoding: $0, as: UTF8.self) }
        let (flood, result): (Int, Result<[UInt8], StoreFault>?) = state.withLock { state in
            state.requests[message.kind, default: 0] += 1
            if state.dropAt == message.kind {
                state.dropAt = nil
                return (0, nil)
            }
            defer { state.floodBeforeAnswer = 0 }
            if let refusal = state.refusals[message.kind]?.first {
                state.refusals[message.kind]?.removeFirst()
                return (state.floodBeforeAnswer, .success(Array("!\(refusal)".utf8)))
            }
            return (state.floodBeforeAnswer, .success(state.work(message, words, connection)))
        }
        guard let payload = try? result?.get() else { return nil }
        for _ in 0..<flood {
            for watch in state.withLock({ $0.watches }) where watch.connection == connection {
                send(StoreMessage(kind: StoreMessage.Kind.event, payload: event(watch.path, watch.token)), connection)
            }
        }
        if payload.first == UInt8(ascii: "!") {
            return StoreMessage(kind: StoreMessage.Kind.error, payload: Array(payload.dropFirst()) + [0])
        }
        return StoreMessage(kind: message.kind, transaction: message.transaction, payload: payload)
    }
}

extension FakeXenstored.State {
    fileprivate mutating func work(_ message: StoreMessage, _ words: [String], _ connection: CInt) -> [UInt8] {
        switch message.kind {
        case StoreMessage.Kind.read: return nodes[words[0]] ?? Array("!ENOENT".utf8)
        case StoreMessage.Kind.directory:
            if let refusal = nodes[words[0]], refusal.first == UInt8(ascii: "!") { return refusal }
            let names = nodes.keys.filter { $0 == words[0] || $0.hasPrefix(words[0] + "/") }
            return names.isEmpty ? Array("!ENOENT".utf8) : []
        case StoreMessage.Kind.isIntroduced:
            guard isPrivileged else { return Array("!EACCES".utf8) }
            return Array((introduced.contains(words[0]) ? "T\0" : "F\0").utf8)
        case StoreMessage.Kind.write:
            nodes[words[0]] = Array(message.payload.drop { $0 != 0 }.dropFirst())
            return Array("OK\0".utf8)
        case StoreMessage.Kind.transactionStart:
            transactions += 1
            return Array("\(transactions)\0".utf8)
        case StoreMessage.Kind.watch:
            watches.append((connection, words[0], words[1]))
            return Array("OK\0".utf8)
        case StoreMessage.Kind.unwatch:
            watches.removeAll { $0.token == words[1] && $0.connection == connection }
            return Array("OK\0".utf8)
        default: return Array("OK\0".utf8)
        }
    }
}
