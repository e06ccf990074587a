// A SuperSpeed device offered as a high-speed one: its descriptors in the words of USB 2.0.

/// Why a device cannot be offered.
public enum USBDescriptorFault: Error, Hashable, Sendable, CustomStringConvertible {
    /// No device descriptor.
    case device
    /// No configuration descriptor at this place.
    case configuration(Int)
    /// An endpoint moves more bytes in a microframe than three packets of 1024, and its interface has no setting without.
    case periodicTooLarge(interface: UInt8, USBEndpointAddress, bytes: Int)
    /// An endpoint needs bulk streams, which USB 2.0 does not have, and its interface has no setting without.
    case streams(interface: UInt8, USBEndpointAddress)

    public var description: String {
        switch self {
        case .device: "it has no device descriptor"
        case .configuration(let index): "its configuration descriptor \(index) is none"
        case .periodicTooLarge(let interface, let endpoint, let bytes):
            "\(endpoint) of interface \(interface) moves \(bytes) bytes in a microframe, USB 2.0 at most 3072"
        case .streams(let interface, let endpoint):
            "\(endpoint) of interface \(interface) needs bulk streams, which USB 2.0 does not have"
        }
    }
}

/// A SuperSpeed device's descriptors, rewritten to those of a USB 2.0 device (USB 2.0, 9.6; USB 3.2, 9.6):
///
/// | SuperSpeed | high speed |
/// | --- | --- |
/// | `bcdUSB` 3.x, `bMaxPacketSize0` an exponent | 2.00, 64 |
/// | bulk of 1024 bytes | 512 |
/// | `wBytesPerInterval` of a periodic endpoint | as `wMaxPacketSize` in one to three transactions |
/// | `bMaxPower` in 8 mA | in 2 mA, 500 mA at most |
/// | companion descriptors | none |
/// | binary object store | stalled, as the device qualifier is: one speed only |
///
/// An alternate setting that USB 2.0 cannot carry is left out: of USB attached SCSI that is the setting with streams, so
/// that the guest takes the one of mass storage; of a camera the fastest ones. If none is left that can do anything, the
/// device is refused.
///
/// What remains is the bus itself: the device still uses packets of 1024, and whoever carries its bulk transfers must
/// make two of each.
public struct HighSpeedDescriptors: Sendable {
    /// The device descriptor, 18 bytes.
    public let device: [UInt8]
    /// The configuration descriptors with all that belongs to them, in the order of their indices.
    public let configurations: [[UInt8]]
    /// What was left out: configuration (by its place), interface, alternate setting, and why.
    public let removed: [Removed]

    public struct Removed: Hashable, Sendable {
        public let configuration: Int
        public let interface: UInt8
        public let alternate: UInt8
        public let reason: USBDescriptorFault
    }

    /// - Parameters:
    ///   - device: the device descriptor as the device sends it.
    ///   - configurations: all configuration descriptors, whole, in the order of their indices.
    public init(device: [UInt8], configurations: [[UInt8]]) throws(USBDescriptorFault) {
        guard USBDeviceDescriptor(device) != nil else { throw .device }
        self.device = HighSpeedDescriptors.device(device)
        var rewritten: [[UInt8]] = []
        var removed: [Removed] = []
        for (index, bytes) in configurations.enumerated() {
            guard let (head, descriptors) = USBConfiguration.split(bytes) else { throw .configuration(index) }
            let settings = Setting.all(of: descriptors)
            try HighSpeedDescriptors.check(settings)
            let kept = settings.filter { $0.fault == nil }
            rewritten.append(HighSpeedDescriptors.configuration(head, kept))
            for setting in settings {
                guard let reason = setting.fault else { continue }
                removed.append(
                    Removed(
                        configuration: index,
                        interface: setting.number,
                        alternate: setting.alternate,
                        reason: reason
                    )
                )
            }
        }
        self.configurations = rewritten
        self.removed = removed
    }

    /// What GET_DESCRIPTOR is answered with.
    public enum Answer: Hashable, Sendable {
        /// At most as many as asked for: guests read nine bytes of a configuration to learn how many it has.
        case bytes([UInt8])
        case stall
        /// The device itself has the answer.
        case forward
    }

    /// - Parameter length: `wLength`, how many bytes the guest wants at most.
    public func answer(to type: USBDescriptorType, index: UInt8, length: UInt16) -> Answer {
        switch type {
        case .device: index == 0 ? .bytes(Array(device.prefix(Int(length)))) : .stall
        case .configuration:
            Int(index) < configurations.count
                ? .bytes(Array(configurations[Int(index)].prefix(Int(length)))) : .stall
        case .qualifier, .otherSpeed, .objectStore, .superSpeedCompanion, .superSpeedPlusCompanion: .stall
        default: .forward
        }
    }

    private static func device(_ bytes: [UInt8]) -> [UInt8] {
        var bytes = Array(bytes.prefix(USBDeviceDescriptor.byteCount))
        bytes[0] = UInt8(USBDeviceDescriptor.byteCount)
        (bytes[2], bytes[3]) = (0x00, 0x02)
        bytes[7] = 64
        return bytes
    }

    private static func configuration(_ head: USBDescriptor, _ settings: [Setting]) -> [UInt8] {
        var bytes = Array(head.bytes) + settings.flatMap(\.bytes)
        // It only gets shorter, so it still fits.
        bytes[2] = UInt8(truncatingIfNeeded: bytes.count)
        bytes[3] = UInt8(truncatingIfNeeded: bytes.count &>> 8)
        // At most 250 × 2 mA.
        bytes[8] = UInt8(min(250, Int(bytes[8]) &* 4))
        return bytes
    }

    /// An interface must keep its setting 0, and one with endpoints if it has lost such.
    private static func check(_ settings: [Setting]) throws(USBDescriptorFault) {
        for setting in settings {
            guard let fault = setting.fault else { continue }
            guard setting.alternate != 0 else { throw fault }
            let works = settings.contains { $0.number == setting.number && $0.fault == nil && $0.hasEndpoints }
            guard works else { throw fault }
        }
    }
}

/// The descriptors of one alternate setting, or of what stands before or between interfaces, rewritten.
private struct Setting {
    var number: UInt8 = 0
    var alternate: UInt8 = 0
    var hasEndpoints = false
    var bytes: [UInt8] = []
    /// Why USB 2.0 cannot carry it.
    var fault: USBDescriptorFault?

    /// An interface descriptor begins a setting; an interface association belongs to none.
    static func all(of descriptors: [USBDescriptor]) -> [Setting] {
        var settings: [Setting] = []
        for (index, descriptor) in descriptors.enumerated() {
            let begins = descriptor.type == .interface || descriptor.type == .interfaceAssociation
            if begins || settings.isEmpty { settings.append(Setting()) }
            var setting = settings.removeLast()
            switch descriptor.type {
            case .interface:
                (setting.number, setting.alternate) = (descriptor.u8(2), descriptor.u8(3))
                setting.bytes += descriptor.bytes
            case .endpoint where descriptor.count >= 7:
                let companions = descriptors[(index &+ 1)...].prefix {
                    $0.type != .endpoint && $0.type != .interface && $0.type != .interfaceAssociation
                }
                setting.add(descriptor, companions)
            case .superSpeedCompanion, .superSpeedPlusCompanion: break
            default: setting.bytes += descriptor.bytes
            }
            settings.append(setting)
        }
        return settings
    }

    private mutating func add(_ endpoint: USBDescriptor, _ behind: ArraySlice<USBDescriptor>) {
        hasEndpoints = true
        let address = USBEndpointAddress(rawValue: endpoint.u8(2))
        let companion = behind.first { $0.type == .superSpeedCompanion && $0.count >= 6 }
        var bytes = Array(endpoint.bytes)
        var size: UInt16
        switch bytes[3] & 3 {
        case 0: size = 64
        case 2:
            size = 512
            bytes[3] &= 0x03
            if let companion, companion.u8(3) & 0x1F != 0 { fault = fault ?? .streams(interface: number, address) }
        case let type:
            // Usage types of interrupt endpoints are new with USB 3.0; those of isochronous ones are not.
            if type == 3 { bytes[3] &= 0x03 }
            bytes[6] = min(16, max(1, bytes[6]))
            let count = Setting.bytesPerInterval(endpoint, companion, behind)
            size = Setting.packetSize(count)
            if count > USBWire.maxPacketBytes {
                size = 0
                fault = fault ?? .periodicTooLarge(interface: number, address, bytes: count)
            }
        }
        bytes[4] = UInt8(truncatingIfNeeded: size)
        bytes[5] = UInt8(truncatingIfNeeded: size &>> 8)
        self.bytes += bytes
    }

    /// The bytes that the endpoint transfers in a microframe, according to the most specific descriptor.
    private static func bytesPerInterval(
        _ endpoint: USBDescriptor,
        _ companion: USBDescriptor?,
        _ behind: ArraySlice<USBDescriptor>
    ) -> Int {
        if let plus = behind.first(where: { $0.type == .superSpeedPlusCompanion && $0.count >= 8 }) {
            return Int(plus.u16(4)) | Int(plus.u16(6)) &<< 16
        }
        if let count = companion?.u16(4), count > 0 { return Int(count) }
        return Int(endpoint.u16(4) & 0x7FF)
    }

    /// `wMaxPacketSize` with its additional transactions (USB 2.0, table 9-14): 1 … 1024, 2 × 513 … 1024,
    /// 3 × 683 … 1024.
    private static func packetSize(_ count: Int) -> UInt16 {
        let transactions = max(1, (count &+ 1023) / 1024)
        let size = (count &+ transactions &- 1) / transactions
        return UInt16(truncatingIfNeeded: size | (transactions &- 1) &<< 11)
    }
}
