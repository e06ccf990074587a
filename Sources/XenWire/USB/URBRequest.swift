// An URB that cannot be wrong: what the rest of the backend works with.

/// A validated URB. Small, and without the grants: those stay in the slot it was validated from and are read with
/// `segment(_:in:)` and `frameSegment(_:in:)`.
///
/// What Linux's xen-hcd sends (drivers/usb/host/xen-hcd.c):
/// - A buffer of 65536 bytes on a page boundary, which usb-storage makes, has `buffer_length` 0 and 16 whole segments:
///   the driver keeps the lower 16 bits of the length. It is the segments' sum that counts.
/// - A transfer of 0 bytes (a zero-length packet, a control request without data stage) has no segments.
/// - An unlink is the shadow of some older request with only `id`, `pipe` and `unlink_id` set: everything else in it is
///   that request's and must not be looked at. Its pipe is that of the URB it takes back. Both are answered, in any
///   order, each exactly once; the URB is done for the guest when *its* answer comes, the unlink's own answer only
///   frees its id. Ids are used again as soon as their answer is out, so an unlink concerns requests before it in the
///   ring only.
/// - The driver gives each port's reset, suspend and resume 10 to 20 ms without telling the backend; see
///   `USBPipe.device`.
/// - A backend must have released all grants of an URB when its answer becomes visible ("backend didn't release grant"
///   is the end of the controller).
public struct URBRequest: Hashable, Sendable {
    public enum Kind: Hashable, Sendable {
        /// usbcore makes control pipes to endpoint 0 only, except for the rare device that has another control
        /// endpoint.
        case control(SetupPacket)
        case bulk
        /// - Parameter interval: milliseconds, at high speed microframes: advice.
        case interrupt(interval: UInt16)
        /// - Parameters:
        ///   - interval: as above.
        ///   - startFrame: a hint; Linux's drivers pass 0 (as soon as possible).
        ///   - packetCount: 1 … `USBWire.maxPackets`.
        case isochronous(interval: UInt16, startFrame: UInt16, packetCount: Int)
        /// Takes the URB of this id back.
        case unlink(UInt16)
    }

    public let kind: Kind
    /// Its port is right; whether a device is there, and has this address and endpoint, is not looked at.
    public let pipe: USBPipe
    /// Echoed in the response.
    public let id: UInt16
    /// A transfer shorter than asked ends the endpoint's queue. The status stays `okay` (usbcore makes -EREMOTEIO of it
    /// by itself, `__usb_hcd_giveback_urb`; xen-hcd would make -ESHUTDOWN of an -EREMOTEIO), but no later URB of the
    /// endpoint may have begun: usb-storage would read its status packet into a data buffer.
    public let shortNotOK: Bool
    /// Segments of the buffer: 0 … 16.
    public let segmentCount: UInt8
    /// Segments of the frame descriptors, behind those of the buffer: 0 … 15. Only an isochronous URB has any; one of
    /// 0 bytes has none, as xen-hcd grants nothing then: all of its packets are empty.
    public let frameSegmentCount: UInt8
    /// Bytes of the buffer: 0 … `USBWire.maxBytes`.
    public let byteCount: Int

    @inlinable public var port: USBPort { USBPort(unchecked: pipe.portNumber) }
    /// Which way data go. With a control request of no data it means nothing.
    @inlinable public var direction: USBDirection { pipe.direction }
    @inlinable public var endpoint: USBEndpointAddress { pipe.address }

    /// Bytes to transfer: wLength of a control request's setup packet, otherwise the whole buffer.
    @inlinable public var transferByteCount: Int {
        if case .control(let setup) = kind { Int(setup.length) } else { byteCount }
    }

    @usableFromInline
    init(
        kind: Kind,
        pipe: USBPipe,
        id: UInt16,
        shortNotOK: Bool = false,
        segmentCount: Int = 0,
        frameSegmentCount: Int = 0,
        byteCount: Int = 0
    ) {
        self.kind = kind
        self.pipe = pipe
        self.id = id
        self.shortNotOK = shortNotOK
        self.segmentCount = UInt8(truncatingIfNeeded: segmentCount)
        self.frameSegmentCount = UInt8(truncatingIfNeeded: frameSegmentCount)
        self.byteCount = byteCount
    }

    /// Segment `index` (below `segmentCount`, ours) of the buffer: its bounds are right, its grant need not be.
    /// - Parameter bytes: the slot the request was validated from.
    @inlinable
    public func segment(_ index: Int, in bytes: some WireBytes) -> URBSegment {
        precondition(UInt(bitPattern: index) < UInt(segmentCount))
        return URBSegment(word: bytes.u64(USBWire.segmentsOffset &+ index &* USBWire.segmentSize))
    }

    /// Segment `index` (below `frameSegmentCount`, ours) of the frame descriptors. They are read and written; one
    /// descriptor may lie on two pages, as Linux's array of them begins anywhere.
    @inlinable
    public func frameSegment(_ index: Int, in bytes: some WireBytes) -> URBSegment {
        precondition(UInt(bitPattern: index) < UInt(frameSegmentCount))
        let place = Int(segmentCount) &+ index
        return URBSegment(word: bytes.u64(USBWire.segmentsOffset &+ place &* USBWire.segmentSize))
    }

    /// Bytes of all frame descriptors.
    @inlinable public var frameByteCount: Int {
        guard frameSegmentCount > 0, case .isochronous(_, _, let count) = kind else { return 0 }
        return count &* USBWire.packetDescriptorSize
    }

    /// An unlink of nothing as a placeholder: the initial value in tables of requests.
    public static let unused = URBRequest(kind: .unlink(0), pipe: USBPipe(rawValue: 0x21), id: 0)
}

extension URBRequest {
    /// Validates a request by its own bytes. Frame descriptors are looked at later: `IsochronousPackets`.
    /// - Parameter portCount: of the controller, 1 … 31.
    @inlinable
    public init<Bytes: WireBytes>(validating raw: RawURB<Bytes>, portCount: Int) throws(URBFault) {
        let pipe = raw.pipe
        guard pipe.portNumber >= 1, Int(pipe.portNumber) <= portCount else {
            throw .port(pipe.portNumber, count: portCount)
        }
        guard pipe.undefinedBits == 0 else { throw .undefinedPipeBits(pipe.undefinedBits) }
        if pipe.isUnlink {
            self.init(kind: .unlink(raw.unlinkID), pipe: pipe, id: raw.id)
            return
        }
        guard raw.flags & ~1 == 0 else { throw .undefinedFlags(raw.flags & ~1) }
        guard pipe.endpoint != 0 || pipe.type == .control else { throw .typeOfEndpointZero(pipe.type) }
        let frames = pipe.type == .isochronous ? raw.frameSegmentCount : 0
        guard raw.segmentCount &+ frames <= USBWire.maxSegments else {
            throw .segmentCount(buffer: raw.segmentCount, frames: frames)
        }
        let count = try URBRequest.byteCount(of: 0, raw.segmentCount, in: raw.bytes)
        guard UInt16(truncatingIfNeeded: count) == raw.byteCount else {
            throw .byteCount(raw.byteCount, segments: count)
        }
        self.init(
            kind: try URBRequest.kind(of: raw, byteCount: count),
            pipe: pipe,
            id: raw.id,
            shortNotOK: raw.flags & 1 != 0,
            segmentCount: raw.segmentCount,
            frameSegmentCount: frames,
            byteCount: count
        )
    }

    @inlinable
    static func kind<Bytes: WireBytes>(of raw: RawURB<Bytes>, byteCount: Int) throws(URBFault) -> Kind {
        switch raw.pipe.type {
        case .bulk: return .bulk
        case .interrupt: return .interrupt(interval: raw.interval)
        case .control:
            let setup = raw.setup
            guard Int(setup.length) <= byteCount else { throw .setupLength(setup.length, buffer: byteCount) }
            // Without data the direction is meaningless, and drivers use either.
            guard setup.length == 0 || setup.direction == raw.pipe.direction else { throw .setupDirection }
            return .control(setup)
        case .isochronous:
            let packets = raw.packetCount
            guard packets >= 1, packets <= USBWire.maxPackets else { throw .packetCount(packets) }
            let frameBytes = try URBRequest.byteCount(of: raw.segmentCount, raw.frameSegmentCount, in: raw.bytes)
            guard frameBytes == packets &* USBWire.packetDescriptorSize || (frameBytes == 0 && byteCount == 0) else {
                throw .frameBytes(frameBytes, packets: packets)
            }
            return .isochronous(interval: raw.interval, startFrame: raw.startFrame, packetCount: packets)
        }
    }

    /// Checks `count` segments from `first` on and adds up their bytes: at most 16 × 4096.
    ///
    /// One pass without branches for what nearly all requests are, and a second for the index of the first wrong one.
    @inlinable
    static func byteCount(of first: Int, _ count: Int, in bytes: some WireBytes) throws(URBFault) -> Int {
        var total: UInt64 = 0
        var wrong: UInt64 = 0
        let start = USBWire.segmentsOffset &+ first &* USBWire.segmentSize
        bytes.forEachU64(start, count: count) { word in
            let offset = (word &>> 32) & 0xFFFF
            let length = word &>> 48
            // The top bit appears if length is 0 or offset + length is beyond the page.
            wrong |= (length &- 1) | (4096 &- offset &- length)
            total &+= length
        }
        guard wrong &>> 63 == 0 else { throw firstWrong(of: first, count, in: bytes) }
        return Int(truncatingIfNeeded: total)
    }

    @inlinable
    static func firstWrong(of first: Int, _ count: Int, in bytes: some WireBytes) -> URBFault {
        var index = first
        while index < first &+ count {
            let segment = URBSegment(word: bytes.u64(USBWire.segmentsOffset &+ index &* USBWire.segmentSize))
            if segment.length == 0 || Int(segment.offset) &+ Int(segment.length) > USBWire.pageSize {
                return .segmentBounds(index: index, offset: segment.offset, length: segment.length)
            }
            index &+= 1
        }
        return .segmentCount(buffer: count, frames: 0)  // not reached: one of them was wrong
    }
}
