// Errors that cards report (PCI Express, advanced error reporting), told by the kernel when it recovers from them.

internal import CLinux
internal import Glibc
internal import HostIO
internal import SystemPackage

/// A step of the kernel's recovery of a card (Linux, drivers/pci/pci-driver.c, `pci_uevent_ers`).
public struct PCIErrorEvent: Hashable, Sendable {
    public enum Step: String, Sendable, CaseIterable {
        case began = "BEGIN_RECOVERY"
        case succeeded = "SUCCESSFUL_RECOVERY"
        case failed = "FAILED_RECOVERY"
    }
    public var address: PCIBusAddress
    public var step: Step

    public init(_ address: PCIBusAddress, _ step: Step) {
        self.address = address
        self.step = step
    }

    /// Reads one message of the kernel's: `change@/devices/…` and `KEY=value` texts, each ended by a NUL.
    /// - Returns: nil for all others.
    init?(_ bytes: ArraySlice<UInt8>) {
        guard bytes.last == 0, bytes.starts(with: "change@".utf8) else { return nil }
        var values: [Substring: Substring] = [:]
        for text in bytes.split(separator: 0).dropFirst() {
            let line = String(decoding: text, as: UTF8.self)
            let halves = line.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            if halves.count == 2 { values[halves[0]] = halves[1] }
        }
        guard values["SUBSYSTEM"] == "pci", let name = values["PCI_SLOT_NAME"], let event = values["ERROR_EVENT"],
            let address = PCIBusAddress(String(name)), let step = Step(rawValue: String(event))
        else { return nil }
        self.init(address, step)
    }
}

/// A watch of cards' errors, on until it is ended.
public protocol PCIErrorWatch: AnyObject, Sendable {
    /// Called on the watch's loop; `reported` is not called after it.
    func end()
}

/// A netlink socket in a loop. A message that is lost was about an error that is past.
final class KernelErrorWatch: PCIErrorWatch, CompletionTarget, @unchecked Sendable {
    // SAFETY: everything that changes belongs to `loop`.
    private let loop: EventLoop
    private let socket: OpenFile
    private let reported: @Sendable (PCIErrorEvent) -> Void
    private var target: TargetID?
    private var isEnded = false
    private var buffer = [UInt8](repeating: 0, count: KernelErrorWatch.bufferBytes)

    /// The kernel's messages have 2048 bytes at most (UEVENT_BUFFER_SIZE).
    private static let bufferBytes = 8192
    private static let messagesPerTurn = 64

    convenience init(
        loop: EventLoop,
        _ reported: @escaping @Sendable (PCIErrorEvent) -> Void
    ) throws(HostFailure) {
        let descriptor = HostDoor.enter(.deviceEvents) { uevent_socket() }
        if descriptor < 0 {
            throw HostFailure(.host, "no messages about cards' errors (netlink): \(Errno(rawValue: -descriptor))")
        }
        self.init(loop: loop, socket: OpenFile(adopting: descriptor), reported)
    }

    init(loop: EventLoop, socket: OpenFile, _ reported: @escaping @Sendable (PCIErrorEvent) -> Void) {
        self.loop = loop
        self.socket = socket
        self.reported = reported
        if loop.isOnLoop { begin() } else { loop.perform { self.begin() } }
    }

    private func begin() {
        if isEnded { return }
        let target = loop.attach(self)
        self.target = target
        loop.watchReadable(socket.descriptor, target: target, slot: 0)
    }

    func end() {
        precondition(loop.isOnLoop)
        isEnded = true
        if let target { loop.detach(target) }
        target = nil
    }

    func completed(_ completions: borrowing CompletionBatch) {
        for _ in 0..<KernelErrorWatch.messagesPerTurn {
            // SAFETY: the call writes no more than the buffer holds, and keeps no pointer to it.
            let count = unsafe uevent_receive(socket.descriptor, &buffer, UInt(KernelErrorWatch.bufferBytes))
            if count == -EINTR { continue }
            if count < 0 { return }
            if let event = PCIErrorEvent(buffer[..<count]) { reported(event) }
        }
        if let target { loop.soon(target: target, slot: 1) }
    }
}
