// Arrivals and departures, reported by the kernel and by udev.

internal import CLinux
internal import Glibc
internal import HostIO
internal import SystemPackage

/// A netlink socket on a loop, and at most one call for a burst of messages.
///
/// A message only says that something has changed: the receiver looks up the present state in sysfs. So a lost message
/// (ENOBUFS: the socket's buffer overflowed) causes a call, too, and a forged one could cause no more than that. Each
/// turn reads a limited number of messages.
@safe
final class KernelWatch: USBWatch, CompletionTarget, @unchecked Sendable {
    // SAFETY: `target`, `isPending` and `isEnded` belong to `loop`.
    private let loop: EventLoop
    private let socket: OpenFile
    private let udev: FilePath
    private let changed: @Sendable () -> Void
    private var target: TargetID?
    private var isPending = false
    private var isEnded = false
    private var buffer = [UInt8](repeating: 0, count: KernelWatch.bufferBytes)

    /// The kernel's messages have at most 2048 bytes (UEVENT_BUFFER_SIZE), udev's a little more.
    private static let bufferBytes = 8192
    private static let readMark: UInt32 = 0
    private static let tellMark: UInt32 = 1
    private static let againMark: UInt32 = 2
    /// A device causes many messages, also one for each interface and driver.
    private static let patience = Duration.milliseconds(20)
    private static let messagesPerTurn = 64

    /// - Throws: `.host` if the socket cannot be made.
    convenience init(loop: EventLoop, udev: FilePath, _ changed: @escaping @Sendable () -> Void) throws(HostFailure) {
        let descriptor = HostDoor.enter(.deviceEvents) { uevent_socket() }
        if descriptor < 0 {
            throw HostFailure(.host, "no messages about devices (netlink): \(Errno(rawValue: -descriptor))")
        }
        self.init(loop: loop, socket: OpenFile(adopting: descriptor), udev: udev, changed)
    }

    init(loop: EventLoop, socket: OpenFile, udev: FilePath, _ changed: @escaping @Sendable () -> Void) {
        self.loop = loop
        self.socket = socket
        self.udev = udev
        self.changed = changed
        if loop.isOnLoop { begin() } else { loop.perform { self.begin() } }
    }

    private func begin() {
        if isEnded { return }
        let target = loop.attach(self)
        self.target = target
        loop.watchReadable(socket.descriptor, target: target, slot: KernelWatch.readMark)
    }

    func end() {
        precondition(loop.isOnLoop)
        isEnded = true
        if let target { loop.detach(target) }
        target = nil
    }

    func completed(_ completions: borrowing CompletionBatch) {
        var isTime = false
        for position in 0..<completions.count {
            if completions[position].slot == KernelWatch.tellMark { isTime = true }
        }
        read()
        if isTime, isPending {
            isPending = false
            changed()
        }
    }

    private func read() {
        // Checked each time: udevd may be started after us.
        let hasUdev = unsafe access(udev.string, F_OK) == 0
        for _ in 0..<KernelWatch.messagesPerTurn {
            // SAFETY: the call writes no more than the buffer holds, and keeps no pointer to it.
            let count = unsafe uevent_receive(socket.descriptor, &buffer, UInt(KernelWatch.bufferBytes))
            if count == -EAGAIN { return }
            if count == -EINTR { continue }
            if count < 0 { return note() }
            // Ignored: a message that was truncated or came from an untrusted sender.
            if let event = Uevent(buffer[..<count]), event.isChange(hasUdev: hasUdev) { note() }
        }
        if let target { loop.soon(target: target, slot: KernelWatch.againMark) }
    }

    private func note() {
        if isPending { return }
        isPending = true
        if let target { loop.after(KernelWatch.patience, target: target, slot: KernelWatch.tellMark) }
    }
}
