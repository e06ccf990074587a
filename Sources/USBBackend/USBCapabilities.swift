// How a device of the host appears to the guest: at which speed, with which descriptors and endpoints.

internal import HostUSB
internal import XenWire

/// Why a controller cannot carry a device, for people.
struct USBRefusal: Error, Hashable, Sendable {
    let text: String
    init(_ text: String) { self.text = text }
}

/// A device as a controller presents it.
struct USBCapabilities: Sendable, CustomStringConvertible {
    /// The speed in the connection event.
    let speed: USBIFSpeed
    /// Whether bulk packets of 1024 bytes appear to the guest as two of 512.
    var splitsPackets: Bool { disguise != nil }
    /// The device's own, for people.
    private let own: USBSpeed
    /// The descriptors that a SuperSpeed device shows to the guest.
    private let disguise: HighSpeedDescriptors?
    private let configurations: [USBConfiguration]

    /// - Throws: why the device cannot be on this controller.
    init(_ facts: USBDeviceFacts, _ descriptors: USBDescriptors, version: USBVersion) throws(USBRefusal) {
        own = facts.speed
        var configurations = descriptors.configurations
        switch (facts.speed, version) {
        case (.low, _): (speed, disguise) = (.low, nil)
        case (.full, _): (speed, disguise) = (.full, nil)
        case (.high, .usb20): (speed, disguise) = (.high, nil)
        case (.super, .usb20):
            do throws(USBDescriptorFault) {
                let rewritten = try HighSpeedDescriptors(
                    device: descriptors.device,
                    configurations: descriptors.configurations
                )
                (speed, disguise) = (.high, rewritten)
                configurations = rewritten.configurations
            } catch {
                throw USBRefusal("a SuperSpeed device that a USB 2.0 controller cannot carry: \(error)")
            }
        case (.high, .usb11): (speed, disguise) = (.full, nil)
        case (.super, .usb11): throw USBRefusal("a SuperSpeed device, and the controller is one of USB 1.1 (usb-ver 1)")
        }
        self.configurations = configurations.compactMap { USBConfiguration($0) }
        if facts.speed == .high, version == .usb11 { try fitFullSpeed() }
    }

    /// A high-speed device stays at high speed on the host's bus. Behind a USB 1.1 controller it is accepted only if
    /// its endpoints would be valid at full speed (USB 2.0, 5.5.3 … 5.8.3).
    private func fitFullSpeed() throws(USBRefusal) {
        for interface in configurations.flatMap(\.interfaces) {
            for endpoint in interface.endpoints {
                let fits =
                    switch endpoint.type {
                    case .control, .bulk, .interrupt: endpoint.bytesPerInterval <= 64
                    case .isochronous: false
                    }
                if fits { continue }
                throw USBRefusal(
                    "a high-speed device, and the controller is one of USB 1.1 (usb-ver 1), which cannot carry "
                        + "\(endpoint.address): \(endpoint.type), \(endpoint.bytesPerInterval) bytes"
                )
            }
        }
    }

    /// The endpoints that exist with these settings.
    /// - Parameters:
    ///   - value: bConfigurationValue; 0: none.
    ///   - alternates: by interface number; interfaces beyond these have setting 0.
    func endpoints(_ value: UInt8, _ alternates: [UInt8]) -> USBEndpointTable {
        var table = USBEndpointTable()
        guard let configuration = configurations.first(where: { $0.value == value }) else { return table }
        for interface in configuration.interfaces {
            let number = Int(interface.number)
            guard interface.alternate == (number < alternates.count ? alternates[number] : 0) else { continue }
            for endpoint in interface.endpoints { table[endpoint.address] = endpoint.type }
        }
        return table
    }

    /// What GET_DESCRIPTOR is answered with.
    func answer(to type: XenWire.USBDescriptorType, index: UInt8, length: UInt16) -> HighSpeedDescriptors.Answer {
        disguise?.answer(to: type, index: index, length: length) ?? .forward
    }

    var description: String {
        own.rawValue == "\(speed)" ? "\(speed) speed" : "\(speed) speed (\(own.rawValue) speed on the host)"
    }
}

/// Which endpoints a device has, and of what type each is.
struct USBEndpointTable: Hashable, Sendable {
    private var types = [USBTransferType?](repeating: nil, count: 32)

    subscript(endpoint: USBEndpointAddress) -> USBTransferType? {
        get { types[RootPort.index(endpoint)] }
        set { types[RootPort.index(endpoint)] = newValue }
    }
}
