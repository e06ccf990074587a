// The pipe of an URB: port, direction, device, endpoint, type in one number.

/// `pipe` of a request (usbif.h, `USBIF_PIPE_*`), as it came.
public struct USBPipe: RawRepresentable, Hashable, Sendable {
    public let rawValue: UInt32
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// - Parameters:
    ///   - device: the address on the port, 0 … 127; higher bits are dropped.
    ///   - endpoint: 0 … 15; higher bits are dropped.
    @inlinable
    public init(
        _ port: USBPort,
        _ type: USBTransferType,
        device: UInt8,
        endpoint: UInt8 = 0,
        _ direction: USBDirection,
        isUnlink: Bool = false
    ) {
        rawValue =
            UInt32(port.number) | (isUnlink ? USBPipe.unlinkBit : 0) | (direction == .in ? USBPipe.directionBit : 0)
            | UInt32(device & 0x7F) &<< 8 | UInt32(endpoint & 0x0F) &<< 15 | UInt32(type.rawValue) &<< 30
    }

    @inlinable static var unlinkBit: UInt32 { 0x20 }
    @inlinable static var directionBit: UInt32 { 0x80 }

    /// 0 … 31. 0 is no port.
    @inlinable public var portNumber: UInt8 { UInt8(truncatingIfNeeded: rawValue & 0x1F) }
    /// The request takes another one back.
    @inlinable public var isUnlink: Bool { rawValue & USBPipe.unlinkBit != 0 }
    @inlinable public var direction: USBDirection { rawValue & USBPipe.directionBit != 0 ? .in : .out }
    /// 0 … 127. 0 is a device that was reset and has no address yet: xen-hcd tells the backend of no reset of a port,
    /// so the next request to 0 is how a backend learns of it.
    @inlinable public var device: UInt8 { UInt8(truncatingIfNeeded: rawValue &>> 8) & 0x7F }
    /// 0 … 15
    @inlinable public var endpoint: UInt8 { UInt8(truncatingIfNeeded: rawValue &>> 15) & 0x0F }
    @inlinable public var address: USBEndpointAddress { USBEndpointAddress(endpoint, direction) }

    @inlinable public var type: USBTransferType {
        switch rawValue &>> 30 {
        case 0: .isochronous
        case 1: .interrupt
        case 2: .control
        default: .bulk
        }
    }

    /// Bits that must be zero: 6 and 19 to 29.
    @inlinable public var undefinedBits: UInt32 { rawValue & 0x3FF8_0040 }
}
