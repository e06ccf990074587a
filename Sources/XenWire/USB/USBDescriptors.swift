// A device's descriptors: iteration, and configurations read into values.

/// One descriptor: `bLength` bytes, the second of which is its type.
public struct USBDescriptor: Hashable, Sendable {
    /// At least two bytes, the two of the head.
    public let bytes: ArraySlice<UInt8>

    public var type: USBDescriptorType { USBDescriptorType(rawValue: u8(1)) }
    public var count: Int { bytes.count }

    /// Byte `offset` of the descriptor; 0 beyond its end.
    public func u8(_ offset: Int) -> UInt8 {
        offset >= 0 && offset < bytes.count ? bytes[bytes.startIndex &+ offset] : 0
    }

    /// Two bytes from `offset` on, little-endian; 0 for those beyond the end.
    public func u16(_ offset: Int) -> UInt16 { UInt16(u8(offset)) | UInt16(u8(offset &+ 1)) &<< 8 }
}

/// The consecutive descriptors in `bytes`. Ends at the first malformed one, which lacks its head or is longer than what
/// is left. So it always ends, whatever a device sends.
public struct USBDescriptorSequence: Sequence, IteratorProtocol, Sendable {
    private let bytes: [UInt8]
    private var place = 0

    public init(_ bytes: [UInt8]) { self.bytes = bytes }

    public mutating func next() -> USBDescriptor? {
        let left = bytes.count &- place
        guard left >= 2 else { return nil }
        let count = Int(bytes[place])
        guard count >= 2, count <= left else { return nil }
        defer { place &+= count }
        return USBDescriptor(bytes: bytes[place..<place &+ count])
    }
}

/// A device descriptor (USB 2.0, table 9-8).
public struct USBDeviceDescriptor: Hashable, Sendable {
    /// `bcdUSB`: 0x0110, 0x0200, 0x0320 …
    public let usb: UInt16
    public let deviceClass: UInt8
    public let subclass: UInt8
    public let `protocol`: UInt8
    /// `bMaxPacketSize0` as it stands: bytes, of a SuperSpeed device an exponent.
    public let maxPacket0: UInt8
    public let vendor: UInt16
    public let product: UInt16
    /// `bcdDevice`
    public let release: UInt16
    /// Index of the string descriptor; 0: none.
    public let serialNumber: UInt8
    public let configurationCount: UInt8

    /// `HUB_CLASS`
    public var isHub: Bool { deviceClass == 9 }

    static let byteCount = 18

    /// - Returns: nil if the bytes do not begin with a whole device descriptor.
    public init?(_ bytes: [UInt8]) {
        var descriptors = USBDescriptorSequence(bytes)
        guard let descriptor = descriptors.next(), descriptor.type == .device,
            descriptor.count >= USBDeviceDescriptor.byteCount
        else { return nil }
        usb = descriptor.u16(2)
        deviceClass = descriptor.u8(4)
        subclass = descriptor.u8(5)
        `protocol` = descriptor.u8(6)
        maxPacket0 = descriptor.u8(7)
        vendor = descriptor.u16(8)
        product = descriptor.u16(10)
        release = descriptor.u16(12)
        serialNumber = descriptor.u8(16)
        configurationCount = descriptor.u8(17)
    }
}

/// A configuration with all of its interfaces (USB 2.0, 9.6.3 and on).
public struct USBConfiguration: Hashable, Sendable {
    /// `bConfigurationValue`: the value for SET_CONFIGURATION.
    public let value: UInt8
    public let attributes: UInt8
    /// As the descriptors list them: alternate settings one by one.
    public let interfaces: [USBInterface]

    static let headByteCount = 9

    /// Reads a configuration descriptor with what follows it. What lies behind `wTotalLength`, or behind the first
    /// descriptor that is none, is not there.
    /// - Returns: nil if the bytes do not begin with a whole configuration descriptor.
    public init?(_ bytes: [UInt8]) {
        guard let (head, descriptors) = USBConfiguration.split(bytes) else { return nil }
        value = head.u8(5)
        attributes = head.u8(7)
        var interfaces: [USBInterface] = []
        for descriptor in descriptors {
            switch descriptor.type {
            case .interface:
                if let interface = USBInterface(descriptor) { interfaces.append(interface) }
            case .endpoint:
                if let endpoint = USBEndpoint(descriptor), let last = interfaces.indices.last {
                    interfaces[last].endpoints.append(endpoint)
                }
            default: break
            }
        }
        self.interfaces = interfaces
    }

    /// The configuration descriptor and those behind it.
    static func split(_ bytes: [UInt8]) -> (head: USBDescriptor, rest: [USBDescriptor])? {
        var descriptors = USBDescriptorSequence(bytes)
        guard let head = descriptors.next(), head.type == .configuration, head.count >= headByteCount else {
            return nil
        }
        var left = Int(head.u16(2)) &- head.count
        var rest: [USBDescriptor] = []
        while let descriptor = descriptors.next(), descriptor.count <= left {
            rest.append(descriptor)
            left &-= descriptor.count
        }
        return (head, rest)
    }

    /// One setting of one interface.
    public func interface(_ number: UInt8, alternate: UInt8) -> USBInterface? {
        interfaces.first { $0.number == number && $0.alternate == alternate }
    }
}

/// One alternate setting of one interface (USB 2.0, table 9-12).
public struct USBInterface: Hashable, Sendable {
    public let number: UInt8
    public let alternate: UInt8
    public let interfaceClass: UInt8
    public let subclass: UInt8
    public let `protocol`: UInt8
    public internal(set) var endpoints: [USBEndpoint] = []

    init?(_ descriptor: USBDescriptor) {
        guard descriptor.type == .interface, descriptor.count >= 9 else { return nil }
        number = descriptor.u8(2)
        alternate = descriptor.u8(3)
        interfaceClass = descriptor.u8(5)
        subclass = descriptor.u8(6)
        `protocol` = descriptor.u8(7)
    }
}

/// An endpoint (USB 2.0, table 9-13).
public struct USBEndpoint: Hashable, Sendable {
    public let address: USBEndpointAddress
    public let type: USBTransferType
    /// Bytes of one transaction: 0 … 2047, as `wMaxPacketSize` has them.
    public let maxPacket: Int
    /// Transactions in a microframe: 1 … 3, at high speed and of periodic endpoints more than 1. (The reserved 4 is 1.)
    public let transactions: Int
    /// `bInterval`
    public let interval: UInt8

    /// Bytes of an isochronous packet at most.
    public var bytesPerInterval: Int { maxPacket &* transactions }

    init?(_ descriptor: USBDescriptor) {
        guard descriptor.type == .endpoint, descriptor.count >= 7 else { return nil }
        address = USBEndpointAddress(rawValue: descriptor.u8(2))
        switch descriptor.u8(3) & 3 {
        case 0: type = .control
        case 1: type = .isochronous
        case 2: type = .bulk
        default: type = .interrupt
        }
        let word = descriptor.u16(4)
        maxPacket = Int(word & 0x7FF)
        let further = Int(word &>> 11) & 3
        transactions = further == 3 ? 1 : further &+ 1
        interval = descriptor.u8(6)
    }
}
