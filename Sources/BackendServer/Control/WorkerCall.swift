// The broker's calls to a worker: one call over the worker's own control socket, without blocking the loop.

internal import ControlProtocol
internal import HostIO
internal import Hypervisor
internal import SystemPackage

/// Calls a worker and waits for its answer on the loop.
enum WorkerCall {
    /// A longer answer is not from a worker.
    static let replyLimit = 16 << 20

    /// - Throws: what the worker answers; `.workerUnavailable` if it does not run or ends before it answers;
    ///   `.timedOut`.
    static func perform<Verb: ControlVerb>(
        _ verb: Verb,
        at path: FilePath,
        on loop: EventLoop,
        timeout: Duration = .seconds(60)
    ) async throws(ControlError) -> Verb.Reply {
        let reply: [UInt8]
        do throws(Errno) {
            let socket = try UnixSocket.connect(to: path, nonBlocking: true)
            defer { try? socket.close() }
            reply = try await exchange(ControlMessage.call(verb), socket, loop, timeout)
        } catch {
            switch error {
            case .timedOut: throw .timedOut(reason: "no answer from the worker within \(timeout.components.seconds) s")
            default: throw .workerUnavailable(reason: "the domain's worker does not answer: \(error)")
            }
        }
        return try ControlMessage.decodeReply(to: Verb.self, from: reply)
    }

    /// Sends the call and receives one message.
    private static func exchange(
        _ call: [UInt8],
        _ socket: FileDescriptor,
        _ loop: EventLoop,
        _ timeout: Duration
    ) async throws(Errno) -> [UInt8] {
        let deadline = ContinuousClock.now + timeout
        try await loop.send(call, to: socket, within: timeout)
        let readable = WatchSignal()
        let watch = DescriptorWatch(socket.rawValue, on: loop) { readable.raise() }
        watch.begin()
        defer { watch.cancel() }
        let alarm = Task(executorPreference: loop) {
            await loop.sleep(for: timeout)
            readable.raise()
        }
        defer { alarm.cancel() }
        var wakes = readable.events.makeAsyncIterator()
        var splitter = MessageSplitter(limit: replyLimit)
        while true {
            if let bytes = try UnixSocket.receive(from: socket) {
                guard !bytes.isEmpty else { throw .connectionReset }
                do throws(MessageSplitter.MessageTooLong) { try splitter.append(bytes) } catch { throw .messageTooLong }
                if let reply = splitter.next() { return reply }
            } else {
                guard ContinuousClock.now < deadline else { throw .timedOut }
                await wakes.next()
            }
        }
    }
}
