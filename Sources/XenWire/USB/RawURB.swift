// An URB as it came, and as a frontend writes it: fields at their offsets, nothing believed.

/// One grant of an URB's data or of its frame descriptors (usbif.h, `struct usbif_request_segment`).
public struct URBSegment: Hashable, Sendable {
    public let reference: GrantReference
    /// First byte in the page.
    public let offset: UInt16
    /// Bytes in the page.
    public let length: UInt16

    @inlinable
    public init(_ reference: GrantReference, offset: UInt16, length: UInt16) {
        self.reference = reference
        self.offset = offset
        self.length = length
    }

    /// From the eight bytes of a segment read as one little-endian number.
    @inlinable
    init(word: UInt64) {
        self.init(
            GrantReference(UInt32(truncatingIfNeeded: word)),
            offset: UInt16(truncatingIfNeeded: word &>> 32),
            length: UInt16(truncatingIfNeeded: word &>> 48)
        )
    }
}

/// A view of a request in private memory (`struct usbif_urb_request`, 148 bytes). Nothing is copied or allocated.
public struct RawURB<Bytes: WireBytes> {
    @usableFromInline let bytes: Bytes
    @inlinable public init(_ bytes: Bytes) { self.bytes = bytes }

    /// Echoed in the response. xen-hcd's are 0 … 15, and it gives up the controller at a response to any other, or to
    /// one that is not in flight ("Illegal request id").
    @inlinable public var id: UInt16 { bytes.u16(0) }
    /// `nr_buffer_segs` as it came.
    @inlinable public var segmentCount: Int { Int(bytes.u16(2)) }
    @inlinable public var pipe: USBPipe { USBPipe(rawValue: bytes.u32(4)) }
    /// `transfer_flags`: bit 0 is `USBIF_SHORT_NOT_OK`.
    @inlinable public var flags: UInt16 { bytes.u16(8) }
    /// `buffer_length`
    @inlinable public var byteCount: UInt16 { bytes.u16(10) }

    /// Of a control request.
    @inlinable public var setup: SetupPacket { SetupPacket(word: bytes.u64(12)) }
    /// Of an interrupt or isochronous request, as Linux's `urb->interval`: milliseconds, at high speed microframes.
    @inlinable public var interval: UInt16 { bytes.u16(12) }
    /// Of an isochronous request.
    @inlinable public var startFrame: UInt16 { bytes.u16(14) }
    /// `number_of_packets` of an isochronous request as it came.
    @inlinable public var packetCount: Int { Int(bytes.u16(16)) }
    /// `nr_frame_desc_segs` of an isochronous request as it came.
    @inlinable public var frameSegmentCount: Int { Int(bytes.u16(18)) }
    /// `unlink_id` of a request that takes another one back.
    @inlinable public var unlinkID: UInt16 { bytes.u16(12) }

    /// Segment `index` (0 … 15, ours) as it came.
    @inlinable
    public func segment(_ index: Int) -> URBSegment {
        precondition(UInt(bitPattern: index) < UInt(bitPattern: USBWire.maxSegments))
        return URBSegment(word: bytes.u64(USBWire.segmentsOffset &+ index &* USBWire.segmentSize))
    }
}

/// What goes into the eight bytes of "request type specific data".
public enum RawURBSpecifics: Sendable {
    case control(SetupPacket)
    case bulk
    case interrupt(interval: UInt16)
    case isochronous(interval: UInt16, startFrame: UInt16, packets: UInt16, frameSegments: UInt16)
    case unlink(UInt16)

    var word: UInt64 {
        switch self {
        case .control(let setup): setup.word
        case .bulk: 0
        case .interrupt(let interval): UInt64(interval)
        case .isochronous(let interval, let start, let packets, let segments):
            UInt64(interval) | UInt64(start) << 16 | UInt64(packets) << 32 | UInt64(segments) << 48
        case .unlink(let id): UInt64(id)
        }
    }
}

extension RawURB where Bytes: WritableWireBytes {
    /// Writes all 148 bytes of a request, right or wrong.
    /// - Parameters:
    ///   - segments: of the buffer and then of the frame descriptors, at most 16; more is a bug of the caller.
    ///   - segmentCount: `nr_buffer_segs`; nil: all of `segments` but the frame descriptors'.
    ///   - byteCount: `buffer_length`; nil: the sum of the buffer's segments.
    public func encode(
        id: UInt16,
        _ pipe: USBPipe,
        _ specifics: RawURBSpecifics,
        segments: [URBSegment] = [],
        segmentCount: UInt16? = nil,
        byteCount: UInt16? = nil,
        flags: UInt16 = 0
    ) {
        precondition(segments.count <= USBWire.maxSegments)
        var frames = 0
        if case .isochronous(_, _, _, let count) = specifics { frames = min(Int(count), segments.count) }
        let buffer = segments.dropLast(frames)
        let sum = buffer.reduce(0 as UInt16) { $0 &+ $1.length }
        bytes.set16(id, at: 0)
        bytes.set16(segmentCount ?? UInt16(truncatingIfNeeded: buffer.count), at: 2)
        bytes.set32(pipe.rawValue, at: 4)
        bytes.set16(flags, at: 8)
        bytes.set16(byteCount ?? sum, at: 10)
        bytes.set64(specifics.word, at: 12)
        for index in 0..<USBWire.maxSegments {
            let segment = index < segments.count ? segments[index] : nil
            let place = USBWire.segmentsOffset + index * USBWire.segmentSize
            bytes.set32(segment?.reference.rawValue ?? 0, at: place)
            bytes.set16(segment?.offset ?? 0, at: place + 4)
            bytes.set16(segment?.length ?? 0, at: place + 6)
        }
    }
}
