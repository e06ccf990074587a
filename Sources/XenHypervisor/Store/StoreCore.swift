// What runs on the store's thread: connecting, requests, retries, watches.

internal import Hypervisor
internal import SystemPackage

/// The store's state, confined to its thread.
final class StoreCore {
    /// Where xenstored may be reached, best first; after the first connection only the place that it was made to: in
    /// domain 0 the kernel's device can be opened although xenstored is not running, and then stays silent.
    private var paths: [String]
    /// How long one call may wait for an unreachable or silent xenstored.
    private let patience: Duration
    /// Since when xenstored has not answered: calls queued behind one that timed out need not wait as long.
    private var troubleSince: ContinuousClock.Instant?
    private let mailbox: StoreMailbox
    private var connection: StoreConnection?
    /// Counts connections: a transaction belongs to one and dies with it.
    private(set) var generation = 0
    let watches = StoreWatches()

    init(paths: [String], patience: Duration, mailbox: StoreMailbox) {
        self.paths = paths
        self.patience = patience
        self.mailbox = mailbox
    }

    /// The thread's whole life.
    func run() {
        while let jobs = mailbox.takeJobs() {
            if jobs.isEmpty { idle() }
            for job in jobs { job(self) }
        }
    }

    /// Sends a request until it is answered: over a new connection if the old one breaks, and a few times more if
    /// xenstored is short of something for the moment.
    ///
    /// All requests are idempotent. In a transaction a broken connection is EAGAIN: the body must run again.
    func call(_ message: StoreMessage, _ attempt: @autoclosure () -> String) throws(HypervisorFailure) -> [UInt8] {
        guard message.payload.count <= StoreMessage.maximumPayload else {
            throw HypervisorFailure(attempt(), .argListTooLong)
        }
        let start = ContinuousClock.now
        let deadline = max((troubleSince ?? start) + patience, start + min(patience, .seconds(1)))
        var pauses = RetryPause()
        var refusals = 0
        while true {
            let pause = pauses.next()
            switch answer(to: message, until: deadline) {
            case .success(let payload):
                troubleSince = nil
                return payload
            case .failure(.refused(let error)):
                troubleSince = nil
                refusals += 1
                let passing = error == .resourceBusy || error == .resourceTemporarilyUnavailable
                guard passing, message.transaction == 0, refusals < 8 else {
                    throw HypervisorFailure(attempt(), error)
                }
            case .failure(.lost(let error)):
                troubleSince = troubleSince ?? start
                disconnect()
                guard message.transaction == 0 else {
                    throw HypervisorFailure(attempt(), .resourceTemporarilyUnavailable)
                }
                guard error != .timedOut, ContinuousClock.now + pause < deadline else {
                    // Never ENOENT or EACCES, which would be mistaken for xenstored's answer about the node.
                    let reason = error == .timedOut ? error : .socketNotConnected
                    throw HypervisorFailure("\(attempt()): xenstored does not answer (\(error))", reason)
                }
            }
            guard mailbox.pause(until: .now + pause) else { throw HypervisorFailure(attempt(), .canceled) }
        }
    }

    /// Sets a watch.
    /// - Returns: its token.
    func watch(_ path: String, raising signal: WatchSignal) throws(HypervisorFailure) -> String {
        let token = watches.add(path, signal)
        do throws(HypervisorFailure) {
            _ = try call(StoreCore.message(StoreMessage.Kind.watch, path, token), "watch \(path)")
        } catch  where error.errno == .fileExists {
            // The connection was remade meanwhile, with all watches.
        } catch {
            _ = watches.remove(token)
            throw error
        }
        watches.registered(token)
        return token
    }

    /// Ends a watch. xenstored's answer does not matter: there is no signal for its events any more.
    func unwatch(_ token: String) {
        guard let path = watches.remove(token), connection != nil else { return }
        _ = try? call(StoreCore.message(StoreMessage.Kind.unwatch, path, token), "unwatch \(path)")
    }

    /// One attempt to connect, without retries, for the start: what is wrong then will stay wrong.
    func connectOnce() throws(Errno) {
        if case .failure(.lost(let error)) = connected(until: .now + patience) { throw error }
    }

    private func answer(
        to message: StoreMessage,
        until deadline: ContinuousClock.Instant
    ) -> Result<[UInt8], StoreFault> {
        do throws(StoreFault) {
            return .success(try connected(until: deadline).get().request(message, until: deadline))
        } catch {
            return .failure(error)
        }
    }

    /// The connection, remade if necessary, with all watches set again.
    private func connected(until deadline: ContinuousClock.Instant) -> Result<StoreConnection, StoreFault> {
        if let connection { return .success(connection) }
        var failure = Errno.noSuchFileOrDirectory
        for path in paths {
            do throws(Errno) {
                connection = try StoreConnection(path: path, mailbox: mailbox, watches: watches)
                generation += 1
                paths = [path]
                break
            } catch {
                // A socket that refuses is a better error than a missing device.
                if error != .noSuchFileOrDirectory { failure = error }
            }
        }
        guard let connection else { return .failure(.lost(failure)) }
        return registerMissing(over: connection, until: deadline).map { connection }
    }

    private func registerMissing(
        over connection: StoreConnection,
        until deadline: ContinuousClock.Instant
    ) -> Result<Void, StoreFault> {
        for (token, path) in watches.unregistered {
            do throws(StoreFault) {
                _ = try connection.request(
                    StoreCore.message(StoreMessage.Kind.watch, path, token),
                    until: deadline
                )
                watches.registered(token)
            } catch {
                // Refused (a quota): `idle` retries every second; the watcher reads once by itself meanwhile.
                guard case .refused = error else { return .failure(error) }
                watches.raise(token: token)
            }
        }
        return .success(())
    }

    /// Waits for events and jobs. Without trouble there is no time-out, so an idle store never wakes up.
    private func idle() {
        if connection == nil, !watches.isEmpty {
            if case .failure = connected(until: .now + patience) { disconnect() }
        } else if let connection, !watches.unregistered.isEmpty {
            if case .failure = registerMissing(over: connection, until: .now + patience) { disconnect() }
        }
        do throws(StoreFault) { try connection?.takeEvents() } catch { disconnect() }
        let troubled = !watches.unregistered.isEmpty
        _ = mailbox.wait(for: connection?.descriptor ?? -1, until: troubled ? .now + .seconds(1) : nil)
    }

    private func disconnect() {
        connection = nil
        watches.forgetConnection()
    }

    private static func message(_ kind: UInt32, _ path: String, _ token: String) -> StoreMessage {
        StoreMessage(kind: kind, payload: Array(path.utf8) + [0] + Array(token.utf8) + [0])
    }
}
