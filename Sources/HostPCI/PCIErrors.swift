// Errors that cards report (PCI Express, advanced error reporting), told by the kernel when it recovers from them.

internal import HostIO

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

/// The kernel's messages on a loop. One that is lost was about an error that is past.
final class KernelErrorWatch: PCIErrorWatch {
    private let socket: DeviceEventSocket

    init(loop: EventLoop, _ reported: @escaping @Sendable (PCIErrorEvent) -> Void) throws(HostFailure) {
        socket = try DeviceEventSocket(on: loop) { arrival in
            if case .message(let bytes) = arrival, let event = PCIErrorEvent(bytes) { reported(event) }
        }
    }

    func end() { socket.end() }
}
