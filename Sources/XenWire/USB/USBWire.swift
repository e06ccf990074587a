// Numbers of usbif.h, and the small words that all of USB shares: ports, directions, types, endpoints, speeds.

/// Sizes and limits of the two rings of a PVUSB controller. Each is one page.
///
/// No member of usbif.h has more than 32 bits, so x86-32, x86-64 and arm lay everything out alike (checked with
/// `gcc -m32` and `gcc -m64` on the header): the frontend's `protocol` key changes nothing.
public enum USBWire {
    /// `struct usbif_urb_request`, and the stride of the URB ring.
    @inlinable public static var urbStride: Int { 148 }
    /// `struct usbif_urb_response`: what is written into a slot; the rest of it stays.
    @inlinable public static var urbResponseSize: Int { 16 }
    /// `USB_URB_RING_SIZE`
    @inlinable public static var urbSlots: Int { 16 }
    /// The stride of the connection ring: a response, which is larger than a request.
    @inlinable public static var connectionStride: Int { 4 }
    /// `struct usbif_conn_request`
    @inlinable public static var connectionRequestSize: Int { 2 }
    /// `struct usbif_conn_response`
    @inlinable public static var connectionResponseSize: Int { 4 }
    /// `USB_CONN_RING_SIZE`
    @inlinable public static var connectionSlots: Int { 512 }
    /// `USBIF_MAX_SEGMENTS_PER_REQUEST`: of the buffer and of the frame descriptors together.
    @inlinable public static var maxSegments: Int { 16 }
    /// `struct usbif_request_segment`
    @inlinable public static var segmentSize: Int { 8 }
    @inlinable static var segmentsOffset: Int { 20 }
    /// Bytes of a granted page.
    @inlinable public static var pageSize: Int { 4096 }
    /// Bytes of the largest URB: 16 whole pages. `buffer_length` has 16 bits and is 0 then; see `URBRequest`.
    @inlinable public static var maxBytes: Int { 65536 }
    /// Linux's `struct usb_iso_packet_descriptor`, which usbif.h does not describe but xen-hcd grants as it stands.
    @inlinable public static var packetDescriptorSize: Int { 16 }
    /// Packets of an isochronous URB. The header has no limit; usbfs takes 128, the drivers of Linux send up to that, and
    /// usbtest a few hundred. The descriptors of 1024 take five of the sixteen segments at most.
    @inlinable public static var maxPackets: Int { 1024 }
    /// Bytes of one isochronous packet: three transactions of 1024 bytes in a microframe (USB 2.0, 5.6.3).
    @inlinable public static var maxPacketBytes: Int { 3072 }
}

/// A port of a controller: 1 … 31 (usbif.h, `USBIF_MAX_PORTNR`).
public struct USBPort: Hashable, Comparable, Sendable, CustomStringConvertible {
    public let number: UInt8

    /// The largest number, and so the most ports of a controller.
    @inlinable public static var maxNumber: UInt8 { 31 }

    /// - Returns: nil for 0 and for what is beyond 31.
    @inlinable
    public init?(_ number: some BinaryInteger) {
        guard let number = UInt8(exactly: number), number >= 1, number <= USBPort.maxNumber else { return nil }
        self.number = number
    }

    @usableFromInline
    init(unchecked number: UInt8) { self.number = number }

    /// Where it stands in a table of ports: 0 … 30.
    @inlinable public var index: Int { Int(number) &- 1 }

    public static func < (left: USBPort, right: USBPort) -> Bool { left.number < right.number }
    public var description: String { String(number) }
}

/// Which way data go, as the host sees it.
public enum USBDirection: Hashable, Sendable {
    /// Host to device: the guest's pages are read.
    case out
    /// Device to host: the guest's pages are written.
    case `in`
}

/// `USBIF_PIPE_TYPE_*`, bits 30 and 31 of a pipe.
public enum USBTransferType: UInt8, Sendable, CaseIterable {
    case isochronous = 0
    case interrupt = 1
    case control = 2
    case bulk = 3
}

/// An endpoint as descriptors and requests name it: its number, and bit 7 for IN (USB 2.0, 9.6.6).
public struct USBEndpointAddress: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public let rawValue: UInt8

    /// - Returns: never nil; bits 4 to 6, which mean nothing, are dropped.
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue & 0x8F }

    /// - Parameter number: 0 … 15; higher bits are dropped.
    @inlinable
    public init(_ number: UInt8, _ direction: USBDirection) {
        rawValue = number & 0x0F | (direction == .in ? 0x80 : 0)
    }

    /// 0 … 15
    @inlinable public var number: UInt8 { rawValue & 0x0F }
    @inlinable public var direction: USBDirection { rawValue & 0x80 != 0 ? .in : .out }
    public var description: String { "endpoint \(number) \(direction)" }
}

/// `USBIF_SPEED_*`: a port's speed in a connection event. The header has nothing faster.
public enum USBIFSpeed: UInt8, Sendable, CaseIterable {
    /// Nothing is plugged in.
    case none = 0
    /// 1.5 Mbit/s
    case low = 1
    /// 12 Mbit/s
    case full = 2
    /// 480 Mbit/s
    case high = 3
}

/// The `usb-ver` of a controller (usbif.h, `enum usb_spec_version`; its 3 is "not supported yet").
public enum USBVersion: UInt8, Sendable, CaseIterable {
    /// `USB_VER_USB11`
    case usb11 = 1
    /// `USB_VER_USB20`
    case usb20 = 2
}
