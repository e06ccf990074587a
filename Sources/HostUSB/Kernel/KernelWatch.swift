// Arrivals and departures, reported by the kernel and by udev.

internal import Glibc
internal import HostIO
internal import SystemPackage

/// At most one call for a burst of messages.
///
/// A message only says that something has changed: the receiver looks up the present state in sysfs. So messages that are lost
/// cause a call, too, and a forged one could cause no more than that.
final class KernelWatch: USBWatch, CompletionTarget, @unchecked Sendable {
    // SAFETY: what changes belongs to `loop`, but for `socket`, which `init` sets and only `end` uses.
    private let loop: EventLoop
    private let udev: FilePath
    private let changed: @Sendable () -> Void
    private var socket: DeviceEventSocket?
    private var target: TargetID?
    private var isPending = false
    private var isEnded = false

    /// A device causes many messages, also one for each interface and driver.
    private static let patience = Duration.milliseconds(20)

    /// - Throws: `.host` if the socket cannot be made.
    convenience init(loop: EventLoop, udev: FilePath, _ changed: @escaping @Sendable () -> Void) throws(HostFailure) {
        self.init(loop, udev, changed)
        socket = try DeviceEventSocket(on: loop) { [weak self] in self?.arrived($0) }
    }

    /// On a socket that is open already, for tests.
    convenience init(
        loop: EventLoop,
        socket: OpenFile,
        udev: FilePath,
        _ changed: @escaping @Sendable () -> Void
    ) {
        self.init(loop, udev, changed)
        self.socket = DeviceEventSocket(on: loop, socket: socket) { [weak self] in self?.arrived($0) }
    }

    private init(_ loop: EventLoop, _ udev: FilePath, _ changed: @escaping @Sendable () -> Void) {
        self.loop = loop
        self.udev = udev
        self.changed = changed
    }

    func end() {
        precondition(loop.isOnLoop)
        isEnded = true
        socket?.end()
        if let target { loop.detach(target) }
        target = nil
    }

    private func arrived(_ arrival: DeviceEventSocket.Arrival) {
        switch arrival {
        case .loss: note()
        case .message(let bytes):
            // Asked each time: udevd may be started after us.
            if Uevent(bytes)?.isChange(hasUdev: unsafe access(udev.string, F_OK) == 0) == true { note() }
        }
    }

    private func note() {
        if isPending || isEnded { return }
        isPending = true
        let target = target ?? loop.attach(self)
        self.target = target
        loop.after(KernelWatch.patience, target: target, slot: 0)
    }

    func completed(_ completions: borrowing CompletionBatch) {
        isPending = false
        changed()
    }
}
