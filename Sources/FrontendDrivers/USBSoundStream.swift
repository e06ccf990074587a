// An isochronous stream kept running, and every sample of it looked at: numbers that count on, or a gap.

public import XenWire

/// A guest's stream to or from an isochronous endpoint, as usb-audio runs one: several URBs in flight, each sent again as
/// soon as it comes back.
///
/// A sample is four bytes, and its value is its own number, little-endian: so a lost, repeated or damaged packet is seen.
public struct USBSoundStream: Sendable {
    public struct Counts: Sendable, Hashable {
        public var urbs = 0
        /// Packets that the backend says it moved, and their bytes.
        public var packets = 0
        public var bytes = 0
        /// Packets with another status than `okay`.
        public var failedPackets = 0
        /// Packets without a byte.
        public var emptyPackets = 0
        /// Places where the samples do not count on (capture).
        public var gaps = 0
        /// URBs that were answered with an error.
        public var failedURBs = 0

        public init() {}
    }

    public let device: USBGuestDevice
    public let endpoint: USBEndpoint
    /// Packets of an URB.
    public var packetsPerURB = 8
    /// URBs in flight.
    public var depth = 4
    /// Bytes of a packet.
    public var packetBytes: Int

    /// - Parameter endpoint: isochronous, in a setting that is selected.
    public init(_ device: USBGuestDevice, _ endpoint: USBEndpoint) {
        self.device = device
        self.endpoint = endpoint
        packetBytes = endpoint.bytesPerInterval
    }

    /// Captures or plays `packetCount` packets (rounded up to whole URBs).
    /// - Parameter firstSample: of playback.
    /// - Throws: when the connection ends. An URB that fails is counted, and the stream goes on.
    public func run(packetCount: Int, firstSample: UInt32 = 0) async throws(FrontendFailure) -> Counts {
        var counts = Counts()
        var next: UInt32? = endpoint.address.direction == .out ? firstSample : nil
        var left = max(1, (packetCount + packetsPerURB - 1) / packetsPerURB)
        var tickets: [URBTicket] = []
        while left > 0 || !tickets.isEmpty {
            if left > 0, tickets.count < depth {
                tickets.append(try await submit(&next))
                left -= 1
                continue
            }
            let outcome = try await device.frontend.outcome(of: tickets.removeFirst())
            counts.urbs += 1
            if outcome.status != .okay { counts.failedURBs += 1 }
            count(outcome, &counts, &next)
        }
        return counts
    }

    private var urb: FrontURB {
        let packets = (0..<packetsPerURB).map { IsochronousPacket(offset: $0 * packetBytes, byteCount: packetBytes) }
        return FrontURB(
            device.pipe(endpoint),
            .isochronous(interval: 1, packets: packets),
            byteCount: packetsPerURB * packetBytes
        )
    }

    private func submit(_ next: inout UInt32?) async throws(FrontendFailure) -> URBTicket {
        guard endpoint.address.direction == .out, let first = next else { return try await device.frontend.submit(urb) }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(urb.byteCount)
        let samples = UInt32(urb.byteCount / 4)
        for sample in 0..<samples {
            for shift in [0, 8, 16, 24] as [UInt32] {
                bytes.append(UInt8(truncatingIfNeeded: (first &+ sample) >> shift))
            }
        }
        next = first &+ samples
        return try await device.frontend.submit(urb, bytes)
    }

    private func count(_ outcome: URBOutcome, _ counts: inout Counts, _ next: inout UInt32?) {
        for (index, packet) in outcome.packets.enumerated() {
            guard packet.status == .okay else {
                counts.failedPackets += 1
                continue
            }
            counts.packets += 1
            counts.bytes += packet.byteCount
            if packet.byteCount == 0 { counts.emptyPackets += 1 }
            guard endpoint.address.direction == .in, index * packetBytes < outcome.bytes.count else { continue }
            let start = index * packetBytes
            let end = min(outcome.bytes.count, start + min(packet.byteCount, packetBytes))
            for place in stride(from: start, to: end - 3, by: 4) {
                let sample = (0..<4).reduce(0 as UInt32) { $0 | UInt32(outcome.bytes[place + $1]) << UInt32(8 * $1) }
                if let next, next != sample { counts.gaps += 1 }
                next = sample &+ 1
            }
        }
    }
}
