// The caller's end of a connection to the machine: one call at a time, each answered.

internal import Hypervisor
internal import Synchronization
internal import SystemPackage
internal import XenWire

/// A connection for one domain. Thread-safe; calls take turns.
final class MachineLink: Sendable {
    let domain: DomainID
    /// Readable when a watch made over this link fired.
    let watchEvent: Descriptor
    private let socket: MachineSocket
    private let turn = Mutex<Void>(())

    init(over socket: MachineSocket, as domain: DomainID) throws(HypervisorFailure) {
        self.domain = domain
        self.socket = socket
        var message = MessageWriter()
        message.put(SimulatedCall.attach.rawValue)
        message.put(domain.rawValue)
        do throws(Errno) {
            try socket.send(message.bytes)
            guard let answer = socket.receive() else { throw .brokenPipe }
            var reader = MessageReader(answer.bytes)
            let status: CInt = try reader.integer()
            guard status == 0, let event = answer.descriptors.first else { throw Errno(rawValue: status) }
            watchEvent = event
        } catch {
            throw HypervisorFailure("attach to the simulated machine as domain \(domain)", error)
        }
    }

    /// Ends the connection from this side, as the death of the process would.
    func shutDown() { socket.shutDown() }

    /// Waits until the connection has ended, from whichever side.
    func waitForEnd() { socket.descriptor.waitHungUp() }

    /// Asks the machine and reads its answer.
    /// - Throws: what the machine answers; `EPIPE` if it is gone.
    func call<R>(
        _ call: SimulatedCall,
        _ operation: @autoclosure () -> String,
        _ arguments: (inout MessageWriter) -> Void = { _ in },
        read: (inout MessageReader, [Descriptor]) throws(Errno) -> R
    ) throws(HypervisorFailure) -> R {
        var message = MessageWriter()
        message.put(call.rawValue)
        arguments(&message)
        do throws(Errno) {
            let answer = try turn.withLock { (_) throws(Errno) -> MachineMessage in
                try socket.send(message.bytes)
                guard let answer = socket.receive() else { throw .brokenPipe }
                return answer
            }
            var reader = MessageReader(answer.bytes)
            let status: CInt = try reader.integer()
            guard status == 0 else { throw Errno(rawValue: status) }
            return try read(&reader, answer.descriptors)
        } catch {
            throw HypervisorFailure(operation(), error)
        }
    }

    func call(
        _ call: SimulatedCall,
        _ operation: @autoclosure () -> String,
        _ arguments: (inout MessageWriter) -> Void = { _ in }
    ) throws(HypervisorFailure) {
        try self.call(call, operation(), arguments) { (_, _) throws(Errno) in () }
    }
}
