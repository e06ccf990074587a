// The eight bytes of a control request, and which of them a backend must do through the host's USB stack.

/// A setup packet (USB 2.0, 9.3).
public struct SetupPacket: Hashable, Sendable {
    /// `bmRequestType`
    public var requestType: UInt8
    /// `bRequest`
    public var request: UInt8
    /// `wValue`
    public var value: UInt16
    /// `wIndex`
    public var index: UInt16
    /// `wLength`: bytes of the data stage.
    public var length: UInt16

    @inlinable
    public init(_ requestType: UInt8, _ request: UInt8, value: UInt16 = 0, index: UInt16 = 0, length: UInt16 = 0) {
        self.requestType = requestType
        self.request = request
        self.value = value
        self.index = index
        self.length = length
    }

    /// From the eight bytes read as one little-endian number.
    @inlinable
    public init(word: UInt64) {
        self.init(
            UInt8(truncatingIfNeeded: word),
            UInt8(truncatingIfNeeded: word &>> 8),
            value: UInt16(truncatingIfNeeded: word &>> 16),
            index: UInt16(truncatingIfNeeded: word &>> 32),
            length: UInt16(truncatingIfNeeded: word &>> 48)
        )
    }

    /// The eight bytes as one little-endian number.
    @inlinable public var word: UInt64 {
        UInt64(requestType) | UInt64(request) &<< 8 | UInt64(value) &<< 16 | UInt64(index) &<< 32
            | UInt64(length) &<< 48
    }

    /// Of the data stage.
    @inlinable public var direction: USBDirection { requestType & 0x80 != 0 ? .in : .out }
}

/// A control request to endpoint 0, by what a backend must do with it.
///
/// A host's USB stack gives devices their addresses, keeps their configurations, alternate settings and data toggles:
/// these requests go through it, never past it. The rest is the device's.
public enum USBControlRequest: Hashable, Sendable {
    /// SET_ADDRESS: the guest's number for the device, 0 … 127. The device keeps the host's.
    case setAddress(UInt8)
    /// SET_CONFIGURATION: `bConfigurationValue`, 0 for none.
    case setConfiguration(UInt8)
    /// SET_INTERFACE
    case setInterface(UInt8, alternate: UInt8)
    /// CLEAR_FEATURE(ENDPOINT_HALT)
    case clearHalt(USBEndpointAddress)
    /// GET_DESCRIPTOR of the device itself.
    case getDescriptor(USBDescriptorType, index: UInt8, language: UInt16)
    /// What a device would take but a guest may not ask for, or a USB 2.0 device does not know: stalled, and never sent.
    case refused(Refusal)
    /// Everything else goes to the device.
    case forward

    public enum Refusal: String, Hashable, Sendable {
        /// A number out of its range: USB 2.0 leaves to the device what it does then (9.4).
        case malformed
        /// SET_FEATURE(TEST_MODE) ends only with the power (USB 2.0, 9.4.9), and would take the port from the host.
        case testMode
        /// U1, U2, latencies: a SuperSpeed device offered as high speed is not asked.
        case superSpeed
        /// SET_DESCRIPTOR: devices have bricked themselves with it.
        case setDescriptor
    }

    @inlinable
    public init(_ setup: SetupPacket) {
        switch (setup.requestType, setup.request) {
        case (0x00, 5):
            self = setup.value <= 127 ? .setAddress(UInt8(truncatingIfNeeded: setup.value)) : .refused(.malformed)
        case (0x00, 9):
            self =
                setup.value <= 255 ? .setConfiguration(UInt8(truncatingIfNeeded: setup.value)) : .refused(.malformed)
        case (0x01, 11):
            self =
                setup.value <= 255 && setup.index <= 255
                ? .setInterface(
                    UInt8(truncatingIfNeeded: setup.index),
                    alternate: UInt8(truncatingIfNeeded: setup.value)
                ) : .refused(.malformed)
        case (0x02, 1) where setup.value == 0:
            self =
                setup.index & ~0x8F == 0
                ? .clearHalt(USBEndpointAddress(rawValue: UInt8(truncatingIfNeeded: setup.index)))
                : .refused(.malformed)
        case (0x80, 6):
            self = .getDescriptor(
                USBDescriptorType(rawValue: UInt8(truncatingIfNeeded: setup.value &>> 8)),
                index: UInt8(truncatingIfNeeded: setup.value),
                language: setup.index
            )
        case (0x00, 3) where setup.value == 2: self = .refused(.testMode)
        case (0x00, 7): self = .refused(.setDescriptor)
        // U1_ENABLE, U2_ENABLE, LTM_ENABLE (USB 3.2, table 9-7), SET_SEL, SET_ISOCH_DELAY.
        case (0x00, 1) where 48...50 ~= setup.value, (0x00, 3) where 48...50 ~= setup.value, (0x00, 48), (0x00, 49):
            self = .refused(.superSpeed)
        default: self = .forward
        }
    }
}

/// `bDescriptorType` (USB 2.0, table 9-5; USB 3.2, table 9-6).
public struct USBDescriptorType: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

    @inlinable public static var device: USBDescriptorType { USBDescriptorType(rawValue: 1) }
    @inlinable public static var configuration: USBDescriptorType { USBDescriptorType(rawValue: 2) }
    @inlinable public static var string: USBDescriptorType { USBDescriptorType(rawValue: 3) }
    @inlinable public static var interface: USBDescriptorType { USBDescriptorType(rawValue: 4) }
    @inlinable public static var endpoint: USBDescriptorType { USBDescriptorType(rawValue: 5) }
    /// What the device is at its other speed.
    @inlinable public static var qualifier: USBDescriptorType { USBDescriptorType(rawValue: 6) }
    /// A configuration at the device's other speed.
    @inlinable public static var otherSpeed: USBDescriptorType { USBDescriptorType(rawValue: 7) }
    @inlinable public static var interfaceAssociation: USBDescriptorType { USBDescriptorType(rawValue: 11) }
    /// Binary device object store.
    @inlinable public static var objectStore: USBDescriptorType { USBDescriptorType(rawValue: 15) }
    @inlinable public static var superSpeedCompanion: USBDescriptorType { USBDescriptorType(rawValue: 0x30) }
    @inlinable public static var superSpeedPlusCompanion: USBDescriptorType { USBDescriptorType(rawValue: 0x31) }
}
