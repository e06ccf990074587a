// The kernel's and udev's messages about devices, read from a netlink socket on a loop.

internal import CLinux
internal import Glibc
internal import SystemPackage

/// A socket of NETLINK_KOBJECT_UEVENT, on until it is ended.
///
/// Each turn of the loop reads a limited number of messages, so that a host on which much happens keeps nobody from his turn.
/// Messages that were truncated, and those that come neither from the kernel nor from root, are left out.
@safe
public final class DeviceEventSocket: CompletionTarget, @unchecked Sendable {
    /// What arrived.
    public enum Arrival {
        /// One message; it is valid during the call.
        case message(ArraySlice<UInt8>)
        /// The socket's buffer overflowed (ENOBUFS), or it broke: some messages are lost.
        case loss
    }

    // SAFETY: everything that changes belongs to `loop`.
    private let loop: EventLoop
    private let socket: OpenFile
    private let arrived: @Sendable (Arrival) -> Void
    private var target: TargetID?
    private var isEnded = false
    private var buffer = [UInt8](repeating: 0, count: DeviceEventSocket.bufferBytes)

    /// The kernel's messages have at most 2048 bytes (UEVENT_BUFFER_SIZE), udev's a little more.
    private static let bufferBytes = 8192
    private static let messagesPerTurn = 64

    /// - Parameter arrived: called on the loop, and not after `end`.
    /// - Throws: `.host` if the socket cannot be made.
    public convenience init(
        on loop: EventLoop,
        _ arrived: @escaping @Sendable (Arrival) -> Void
    ) throws(HostFailure) {
        let descriptor = HostDoor.enter(.deviceEvents) { uevent_socket() }
        if descriptor < 0 {
            throw HostFailure(.host, "no messages about devices (netlink): \(Errno(rawValue: -descriptor))")
        }
        self.init(on: loop, socket: OpenFile(adopting: descriptor), arrived)
    }

    /// On a socket that is open already, for tests.
    package init(on loop: EventLoop, socket: OpenFile, _ arrived: @escaping @Sendable (Arrival) -> Void) {
        self.loop = loop
        self.socket = socket
        self.arrived = arrived
        if loop.isOnLoop { begin() } else { loop.perform { self.begin() } }
    }

    private func begin() {
        if isEnded { return }
        let target = loop.attach(self)
        self.target = target
        loop.watchReadable(socket.descriptor, target: target, slot: 0)
    }

    /// Called on the loop.
    public func end() {
        precondition(loop.isOnLoop)
        isEnded = true
        if let target { loop.detach(target) }
        target = nil
    }

    public func completed(_ completions: borrowing CompletionBatch) {
        for _ in 0..<DeviceEventSocket.messagesPerTurn {
            // SAFETY: the call writes no more than the buffer holds, and keeps no pointer to it.
            let count = unsafe uevent_receive(socket.descriptor, &buffer, UInt(DeviceEventSocket.bufferBytes))
            switch count {
            case -Int(EAGAIN): return
            case -Int(EINTR), 0: continue
            case ..<0: return arrived(.loss)
            default: arrived(.message(buffer[..<count]))
            }
            // Whoever is told may end it.
            if isEnded { return }
        }
        if let target { loop.soon(target: target, slot: 1) }
    }
}
