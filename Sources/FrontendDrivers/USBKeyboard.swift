// usbkbd in Swift: what keys a boot keyboard says are pressed.

internal import XenWire

/// A guest's driver for a keyboard in boot protocol (HID 1.11, appendix B.1).
public struct USBKeyboard: Sendable {
    /// One report of eight bytes.
    public struct Report: Sendable, Hashable {
        /// Bit 0 is left Control, bit 1 left Shift.
        public let modifiers: UInt8
        /// Usages of the keyboard page that are down: 0x04 is A.
        public let keys: [UInt8]

        public init(modifiers: UInt8, keys: [UInt8]) {
            self.modifiers = modifiers
            self.keys = keys
        }
    }

    public let device: USBGuestDevice
    private let endpoint: USBEndpoint

    /// - Returns: nil if the device has no keyboard.
    public init?(_ device: USBGuestDevice) {
        let interface = device.configuration.interfaces.first { interface in
            interface.interfaceClass == 3 && interface.protocol == 1
        }
        guard
            let endpoint = interface?.endpoints.first(where: { $0.type == .interrupt && $0.address.direction == .in })
        else { return nil }
        self.device = device
        self.endpoint = endpoint
    }

    /// Waits for the next report: when a key goes down or up.
    /// - Throws: `urb`, e.g. when the keyboard is pulled out; `device` for a report that is none.
    public func nextReport() async throws(FrontendFailure) -> Report {
        let bytes = try await device.receive(8, from: endpoint)
        guard bytes.count == 8 else { throw .device("sent a report of \(bytes.count) bytes") }
        return Report(modifiers: bytes[0], keys: bytes[2...].filter { $0 != 0 })
    }

    /// Waits for a report that says that keys are down.
    public func nextPress() async throws(FrontendFailure) -> Report {
        while true {
            let report = try await nextReport()
            if !report.keys.isEmpty { return report }
        }
    }

    /// SET_REPORT: bit 0 is Num Lock.
    public func setLights(_ lights: UInt8) async throws(FrontendFailure) {
        try await device.control(SetupPacket(0x21, 9, value: 0x0200), [lights])
    }
}
