// Requests and responses of the transmit and the receive ring: fields at their offsets, nothing believed.

/// A view of a transmit request in private memory (`struct xen_netif_tx_request`, 12 bytes).
public struct TransmitRequest<Bytes: WireBytes> {
    @usableFromInline let bytes: Bytes
    @inlinable public init(_ bytes: Bytes) { self.bytes = bytes }

    @inlinable public var reference: GrantReference { GrantReference(bytes.u32(0)) }
    /// First byte in the page.
    @inlinable public var offset: UInt16 { bytes.u16(4) }
    @inlinable public var flags: TransmitFlags { TransmitFlags(rawValue: bytes.u16(6)) }
    /// Echoed in the response.
    @inlinable public var id: UInt16 { bytes.u16(8) }
    /// In a packet's first request the bytes of the whole packet, in further ones those of the slot.
    @inlinable public var size: UInt16 { bytes.u16(10) }
}

extension TransmitRequest {
    /// A request as a frontend writes it, 12 bytes.
    @inlinable
    public static func words(
        _ reference: GrantReference,
        offset: UInt16,
        flags: TransmitFlags,
        id: UInt16,
        size: UInt16
    ) -> WireWords {
        WireWords(
            low: UInt64(reference.rawValue) | UInt64(offset) &<< 32 | UInt64(flags.rawValue) &<< 48,
            high: UInt64(id) | UInt64(size) &<< 16
        )
    }
}

/// The answer to a transmit request (`struct xen_netif_tx_response`, 4 bytes).
public struct TransmitResponse: Hashable, Sendable {
    public let id: UInt16
    /// `TransmitStatus`, or what a backend made of it.
    public let status: Int16

    /// All bytes of the response.
    @inlinable
    public static func words(id: UInt16, status: TransmitStatus) -> WireWords {
        WireWords(low: UInt64(id) | UInt64(status.wireValue) &<< 16, high: 0)
    }

    /// Reads a response, as the frontend does.
    @inlinable
    public init(decoding bytes: some WireBytes) {
        id = bytes.u16(0)
        status = Int16(bitPattern: bytes.u16(2))
    }
}

/// A page that a frontend posts for packets to come (`struct xen_netif_rx_request`, 8 bytes).
public struct ReceiveRequest: Hashable, Sendable {
    /// Echoed in the response. Linux looks at the slot's place instead.
    public let id: UInt16
    /// The whole page, writable.
    public let reference: GrantReference

    @inlinable
    public init(id: UInt16, reference: GrantReference) {
        self.id = id
        self.reference = reference
    }

    @inlinable
    public init(decoding bytes: some WireBytes) {
        self.init(id: bytes.u16(0), reference: GrantReference(bytes.u32(4)))
    }

    /// All bytes of the request.
    @inlinable public var words: WireWords { WireWords(low: UInt64(id) | UInt64(reference.rawValue) &<< 32, high: 0) }
}

/// One filled page of a received packet (`struct xen_netif_rx_response`, 8 bytes).
public struct ReceiveResponse: Hashable, Sendable {
    public let id: UInt16
    /// First byte in the page.
    public let offset: UInt16
    public let flags: ReceiveFlags
    /// Bytes in this page, or a negative `XEN_NETIF_RSP_*`.
    public let status: Int16

    /// All bytes of the response.
    /// - Parameter status: bytes in this page (at most 4096), or a negative status.
    @inlinable
    public static func words(id: UInt16, offset: UInt16, flags: ReceiveFlags, status: Int16) -> WireWords {
        WireWords(
            low: UInt64(id) | UInt64(offset) &<< 16 | UInt64(flags.rawValue) &<< 32
                | UInt64(UInt16(bitPattern: status)) &<< 48,
            high: 0
        )
    }

    /// Reads a response, as the frontend does.
    @inlinable
    public init(decoding bytes: some WireBytes) {
        id = bytes.u16(0)
        offset = bytes.u16(2)
        flags = ReceiveFlags(rawValue: bytes.u16(4))
        status = Int16(bitPattern: bytes.u16(6))
    }
}
