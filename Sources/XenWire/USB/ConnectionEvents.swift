// The connection ring: a frontend posts empty requests, a backend answers one when something was plugged in or out.

/// A request that waits for an event (usbif.h, `struct usbif_conn_request`, 2 bytes). xen-hcd posts 512 at once when it
/// connects, and one more for each it got back.
public struct ConnectionRequest: Hashable, Sendable {
    /// Echoed in the response; need not be unique.
    public let id: UInt16

    @inlinable public init(id: UInt16) { self.id = id }
    @inlinable public init(decoding bytes: some WireBytes) { self.init(id: bytes.u16(0)) }
    /// All bytes of the request.
    @inlinable public var words: WireWords { WireWords(low: UInt64(id), high: 0) }
}

/// What is plugged into a port now (usbif.h, `struct usbif_conn_response`, 4 bytes).
///
/// xen-hcd acts on a *change* of speed only: a device that took another's place at the same speed is not seen unless
/// `none` was said in between. A port it does not have, or a speed above `high`, is the end of its controller ("Illegal
/// data on conn-ring").
public struct ConnectionResponse: Hashable, Sendable {
    public let id: UInt16
    /// `portnum` as it came.
    public let portNumber: UInt8
    /// `USBIFSpeed`, or what a backend made of it.
    public let speed: UInt8

    @inlinable public var port: USBPort? { USBPort(portNumber) }

    /// All bytes of the response.
    @inlinable
    public static func words(id: UInt16, _ port: USBPort, _ speed: USBIFSpeed) -> WireWords {
        WireWords(low: UInt64(id) | UInt64(port.number) &<< 16 | UInt64(speed.rawValue) &<< 24, high: 0)
    }

    /// Reads a response, as the frontend does.
    @inlinable
    public init(decoding bytes: some WireBytes) {
        id = bytes.u16(0)
        portNumber = bytes.u8(2)
        speed = bytes.u8(3)
    }
}
