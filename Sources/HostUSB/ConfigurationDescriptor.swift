// What is in a configuration: interfaces, their alternate settings, their endpoints.

public import SharedRing

/// The parts of a configuration descriptor that a host must know (USB 2.0, 9.6.3 … 9.6.6).
///
/// Devices send malformed descriptors: one that ends early, is shorter than its type requires or has length 0 ends the
/// list, and what came before it counts.
public struct ConfigurationDescriptor: Hashable, Sendable {
    /// One endpoint of an alternate setting.
    public struct Endpoint: Hashable, Sendable {
        /// Number and direction (bit 7: to the host).
        public var address: UInt8
        public var kind: USBTransfer.Kind
        /// wMaxPacketSize: bytes in bits 0…10, further transactions in bits 11…12.
        public var packetSize: UInt16
        public var interval: UInt8
    }

    /// One alternate setting of an interface.
    public struct Setting: Hashable, Sendable {
        public var interface: UInt8
        public var alternate: UInt8
        public var interfaceClass: UInt8
        public var endpoints: [Endpoint]
    }

    /// bConfigurationValue.
    public var value: UInt8
    /// In the order of the descriptors.
    public var settings: [Setting] = []

    /// Numbers of the interfaces, ascending.
    public var interfaces: [UInt8] { Set(settings.map(\.interface)).sorted() }

    /// Nil if the bytes do not begin with a configuration descriptor.
    public init?(_ bytes: [UInt8]) {
        guard bytes.count >= 9, bytes[0] >= 9, bytes[1] == USBDescriptorType.configuration else { return nil }
        value = bytes[5]
        var rest = bytes[...].dropFirst(Int(bytes[0]))
        while rest.count >= 2 {
            let start = rest.startIndex
            let length = Int(rest[start])
            guard length >= 2, length <= rest.count else { return }
            add(rest[start..<start + length])
            rest = rest.dropFirst(length)
        }
    }

    private mutating func add(_ descriptor: ArraySlice<UInt8>) {
        let start = descriptor.startIndex
        switch descriptor[start + 1] {
        case USBDescriptorType.interface where descriptor.count >= 9:
            settings.append(
                Setting(
                    interface: descriptor[start + 2],
                    alternate: descriptor[start + 3],
                    interfaceClass: descriptor[start + 5],
                    endpoints: []
                )
            )
        case USBDescriptorType.endpoint where descriptor.count >= 7 && !settings.isEmpty:
            guard let kind = USBTransfer.Kind(rawValue: descriptor[start + 3] & 3) else { return }
            settings[settings.count - 1].endpoints.append(
                Endpoint(
                    address: descriptor[start + 2],
                    kind: kind,
                    packetSize: UInt16(descriptor[start + 4]) | UInt16(descriptor[start + 5]) << 8,
                    interval: descriptor[start + 6]
                )
            )
        default: return
        }
    }
}

/// bDescriptorType (USB 2.0, table 9-5; USB 3.2, table 9-6; HID 1.11, 7.1).
package enum USBDescriptorType {
    package static let device: UInt8 = 1
    package static let configuration: UInt8 = 2
    package static let string: UInt8 = 3
    package static let interface: UInt8 = 4
    package static let endpoint: UInt8 = 5
    package static let hid: UInt8 = 0x21
    package static let hidReport: UInt8 = 0x22
    package static let classEndpoint: UInt8 = 0x25
    package static let endpointCompanion: UInt8 = 0x30
}

extension USBDescriptors {
    /// The configuration with that value, parsed.
    public func configuration(_ value: UInt8) -> ConfigurationDescriptor? {
        configurations.lazy.compactMap { ConfigurationDescriptor($0) }.first { $0.value == value }
    }

    /// Parses what the kernel keeps of a device: its device descriptor, then its configurations, as in `descriptors` of
    /// sysfs and in the device's node.
    /// - Returns: nil if there is no device descriptor. A truncated configuration is left out, with those after it.
    public init?(_ bytes: [UInt8]) {
        guard bytes.count >= 18, bytes[0] == 18, bytes[1] == USBDescriptorType.device else { return nil }
        self.init(device: Array(bytes[..<18]), configurations: [])
        var rest = bytes[18...]
        while rest.count >= 9 {
            let start = rest.startIndex
            let length = Int(rest[start + 2]) | Int(rest[start + 3]) << 8
            guard rest[start + 1] == USBDescriptorType.configuration, length >= 9, length <= rest.count else { return }
            configurations.append(Array(rest.prefix(length)))
            rest = rest.dropFirst(length)
        }
    }
}

/// A setup packet (USB 2.0, 9.3).
public struct USBSetup: Hashable, Sendable {
    /// Bytes of it.
    public static let byteCount = 8

    public var requestType: UInt8
    public var request: UInt8
    public var value: UInt16
    public var index: UInt16
    public var length: UInt16

    public init(requestType: UInt8, request: UInt8, value: UInt16 = 0, index: UInt16 = 0, length: UInt16 = 0) {
        self.requestType = requestType
        self.request = request
        self.value = value
        self.index = index
        self.length = length
    }

    /// The packet at the beginning of a control transfer's range.
    public init(_ slot: Slot) {
        self.init(
            requestType: slot.u8(0),
            request: slot.u8(1),
            value: slot.u16(2),
            index: slot.u16(4),
            length: slot.u16(6)
        )
    }

    /// Whether the request changes what the host's own stack knows about the device, so that it goes through
    /// `USBOperation`: SET_ADDRESS, SET_CONFIGURATION, SET_INTERFACE, CLEAR_FEATURE(ENDPOINT_HALT).
    public var isForHost: Bool {
        switch (requestType, request) {
        case (0x00, 5), (0x00, 9), (0x01, 11): true
        case (0x02, 1): value == 0
        default: false
        }
    }

    /// The direction of the data stage; without data the status stage goes to the host in any case.
    public var isToHost: Bool { requestType & 0x80 != 0 && length > 0 }

    /// The eight bytes.
    public var bytes: [UInt8] {
        [requestType, request] + [value, index, length].flatMap { [UInt8(truncatingIfNeeded: $0), UInt8($0 >> 8)] }
    }
}
