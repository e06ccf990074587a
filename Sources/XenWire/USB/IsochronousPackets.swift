// The frame descriptors of an isochronous URB: where each packet lies in the buffer, and what became of it.

/// One packet of an isochronous URB: bytes of the buffer.
public struct IsochronousPacket: Hashable, Sendable {
    public let offset: Int
    /// 0 … 3072
    public let byteCount: Int

    @inlinable
    public init(offset: Int, byteCount: Int) {
        self.offset = offset
        self.byteCount = byteCount
    }
}

/// What became of one packet: a Linux errno, as the guest's driver reads it from its own `iso_frame_desc[i].status`.
/// xen-hcd does not translate it. usbcore initialises a packet's status to -EXDEV.
public struct PacketStatus: RawRepresentable, Hashable, Sendable {
    public let rawValue: Int32
    @inlinable public init(rawValue: Int32) { self.rawValue = rawValue }

    @inlinable public static var okay: PacketStatus { PacketStatus(rawValue: 0) }
    /// -EPROTO: no or a damaged answer of the device.
    @inlinable public static var protocolError: PacketStatus { PacketStatus(rawValue: -71) }
    /// -EILSEQ: a wrong checksum.
    @inlinable public static var wrongChecksum: PacketStatus { PacketStatus(rawValue: -84) }
    /// -ETIME: no answer in time.
    @inlinable public static var noAnswer: PacketStatus { PacketStatus(rawValue: -62) }
    /// -EOVERFLOW: the device sent more than asked.
    @inlinable public static var babble: PacketStatus { PacketStatus(rawValue: -75) }
    /// -EXDEV: not moved, or only in part: its frame had passed.
    @inlinable public static var missed: PacketStatus { PacketStatus(rawValue: -18) }
    /// -EPIPE
    @inlinable public static var stall: PacketStatus { PacketStatus(rawValue: -32) }
    /// -ESHUTDOWN: the device is gone.
    @inlinable public static var shutdown: PacketStatus { PacketStatus(rawValue: -108) }
}

/// Validated frame descriptors (Linux's `struct usb_iso_packet_descriptor`: offset, length, actual_length, status, 32
/// bits each), in a private copy of what the frame descriptors' segments hold one behind the other.
///
/// Packets lie in the buffer in their order, with or without gaps, and do not overlap.
public struct IsochronousPackets<Bytes: WireBytes> {
    @usableFromInline let bytes: Bytes
    public let count: Int

    /// Checks all descriptors of `request`, which is isochronous (ours).
    /// - Parameter bytes: `request.frameByteCount` or more of them. A request without descriptors needs none.
    @inlinable
    public init(validating bytes: Bytes, of request: URBRequest) throws(URBFault) {
        guard case .isochronous(_, _, let count) = request.kind else { preconditionFailure("not isochronous") }
        self.bytes = bytes
        self.count = request.frameSegmentCount > 0 ? count : 0
        precondition(bytes.byteCount >= self.count &* USBWire.packetDescriptorSize)
        var end: UInt32 = 0
        var index = 0
        while index < self.count {
            let offset = bytes.u32(index &* USBWire.packetDescriptorSize)
            let length = bytes.u32(index &* USBWire.packetDescriptorSize &+ 4)
            let (next, overflow) = offset.addingReportingOverflow(length)
            guard !overflow, next <= request.byteCount else {
                throw .packetBounds(index: index, offset: offset, length: length)
            }
            guard length <= USBWire.maxPacketBytes else { throw .packetLength(index: index, length) }
            guard offset >= end else { throw .packetOverlap(index: index) }
            end = next
            index &+= 1
        }
    }

    /// Packet `index` (below `count`, ours).
    @inlinable
    public func packet(_ index: Int) -> IsochronousPacket {
        precondition(UInt(bitPattern: index) < UInt(bitPattern: count))
        return IsochronousPacket(
            offset: Int(bytes.u32(index &* USBWire.packetDescriptorSize)),
            byteCount: Int(bytes.u32(index &* USBWire.packetDescriptorSize &+ 4))
        )
    }

    /// Packet `index` (below `count`, ours) in the descriptor, as a frontend reads it.
    @inlinable
    public func outcome(_ index: Int) -> (byteCount: UInt32, status: PacketStatus) {
        precondition(UInt(bitPattern: index) < UInt(bitPattern: count))
        let place = index &* USBWire.packetDescriptorSize
        return (bytes.u32(place &+ 8), PacketStatus(rawValue: Int32(bitPattern: bytes.u32(place &+ 12))))
    }
}

extension IsochronousPackets where Bytes: WritableWireBytes {
    /// Writes what became of packet `index` (below `count`, ours). The copy has to go back to the frontend's pages, after
    /// the data and before the response.
    /// - Parameter byteCount: moved, at most the packet's.
    @inlinable
    public func finish(_ index: Int, byteCount: Int, _ status: PacketStatus) {
        precondition(UInt(bitPattern: index) < UInt(bitPattern: count))
        let place = index &* USBWire.packetDescriptorSize
        bytes.set32(UInt32(truncatingIfNeeded: byteCount), at: place &+ 8)
        bytes.set32(UInt32(bitPattern: status.rawValue), at: place &+ 12)
    }
}
