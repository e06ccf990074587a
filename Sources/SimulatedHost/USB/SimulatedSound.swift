// A microphone and a loudspeaker with a pattern in which no sample is like another.

public import HostUSB
internal import Synchronization

/// Samples of 48 kHz stereo, 16 bits each: the left one is the low half of the sample's number, the right one the high
/// half. So a pair identifies its sample.
public enum SimulatedSamples {
    /// Stereo samples and bytes of a packet, that is of a millisecond.
    public static let perPacket = 48
    public static let packetBytes = 192

    /// The packet that begins with sample number `frame * 48`.
    public static func packet(_ frame: UInt64) -> [UInt8] {
        (0..<UInt64(perPacket)).flatMap { offset in
            let number = UInt32(truncatingIfNeeded: frame &* UInt64(perPacket) &+ offset)
            return (0..<4).map { UInt8(truncatingIfNeeded: number >> (8 * UInt32($0))) }
        }
    }

    /// The number of the first sample of a packet, if all that follow are the next ones.
    public static func first(in bytes: [UInt8]) -> UInt32? {
        if bytes.isEmpty || bytes.count % 4 != 0 { return nil }
        func number(_ index: Int) -> UInt32 {
            (0..<4).reduce(0) { $0 | UInt32(bytes[index * 4 + $1]) << (8 * UInt32($1)) }
        }
        let isUnbroken = (0..<bytes.count / 4).allSatisfy { number($0) == number(0) &+ UInt32($0) }
        return isUnbroken ? number(0) : nil
    }
}

/// What an isochronous endpoint has seen.
public struct SimulatedSoundCounts: Hashable, Sendable {
    public var packets: UInt64 = 0
    /// Intervals without a packet between two with one.
    public var missedPackets: UInt64 = 0
    /// Times that such intervals began.
    public var gaps: UInt64 = 0
    /// Packets that did not hold the samples behind those of the packet before (loudspeaker).
    public var brokenPackets: UInt64 = 0

    /// Counts the packet of an interval.
    mutating func count(_ frame: UInt64, last: UInt64?) {
        packets += 1
        if let last, frame > last + 1 {
            gaps += 1
            missedPackets += frame - last - 1
        }
    }
}

/// A full-speed sound device (USB Audio 1.0) with one stream of 48 kHz stereo.
public final class SimulatedSound: SimulatedFunction {
    /// What it is to the host's user.
    public enum Direction: Sendable {
        case microphone, loudspeaker
    }
    public let strings: SimulatedStrings
    public let speed = USBSpeed.full
    public let descriptors: USBDescriptors
    private let direction: Direction

    private struct State {
        var counts = SimulatedSoundCounts()
        var lastFrame: UInt64?
        var nextSample: UInt32?
    }
    private let state = Mutex(State())

    public init(_ direction: Direction, vendor: UInt16 = 0x0d8c, product: UInt16 = 0x0014) {
        self.direction = direction
        let name = direction == .microphone ? "Simulated microphone" : "Simulated loudspeaker"
        strings = SimulatedStrings(product: name)
        descriptors = USBDescriptors(
            device: SimulatedDescriptors.device(.full, vendor: vendor, product: product, hasSerial: false),
            configurations: [SimulatedSound.configuration(direction)]
        )
    }

    /// What the stream's endpoint has seen since its interface was last set.
    public var counts: SimulatedSoundCounts { state.withLock { $0.counts } }

    /// The address of the stream's endpoint, in alternate setting 1 of interface 1.
    public var endpoint: UInt8 { direction == .microphone ? 0x81 : 0x01 }

    public func packet(endpoint: UInt8, frame: UInt64, _ data: SimulatedBytes) -> Int {
        state.withLock { state in
            // Intervals begin anew with the endpoint.
            if let last = state.lastFrame, frame <= last { state = State() }
            state.counts.count(frame, last: state.lastFrame)
            state.lastFrame = frame
        }
        if direction == .microphone {
            if case .moved(let count) = data.fill(SimulatedSamples.packet(frame)) { return count }
            return 0
        }
        listen(data.array)
        return data.count
    }

    private func listen(_ bytes: [UInt8]) {
        let first = SimulatedSamples.first(in: bytes)
        state.withLock { state in
            if first == nil || state.nextSample.map({ $0 != first }) ?? false { state.counts.brokenPackets += 1 }
            state.nextSample = first.map { $0 &+ UInt32(bytes.count / 4) }
        }
    }

    public func restart(endpoint: UInt8?) { state.withLock { $0 = State() } }

    /// Control interface 0 with two terminals, streaming interface 1 with an empty setting and one of 192 bytes each
    /// millisecond (USB Audio 1.0, 4.3 … 4.6; formats: 2.2.5).
    private static func configuration(_ direction: Direction) -> [UInt8] {
        let isIn = direction == .microphone
        // From the microphone (0x0201) to the stream (0x0101), or from the stream to the loudspeaker (0x0301).
        let source: [UInt8] = [12, 0x24, 2, 1] + (isIn ? [0x01, 0x02] : [0x01, 0x01]) + [0, 2, 3, 0, 0, 0]
        let sink: [UInt8] = [9, 0x24, 3, 2] + (isIn ? [0x01, 0x01] : [0x01, 0x03]) + [0, 1, 0]
        let header: [UInt8] = [9, 0x24, 1, 0, 1, 30, 0, 1, 1]
        let stream: [UInt8] = [7, 0x24, 1, isIn ? 2 : 1, 1, 1, 0]
        let format: [UInt8] = [11, 0x24, 2, 1, 2, 2, 16, 1, 0x80, 0xbb, 0]
        // Nine bytes in an audio device's endpoint; asynchronous source, adaptive sink (5.12.1.1 of USB 2.0).
        let endpoint: [UInt8] = [9, 5, isIn ? 0x81 : 0x01, isIn ? 5 : 9, 192, 0, 1, 0, 0]
        let body =
            SimulatedDescriptors.interface(0, endpoints: 0, (1, 1, 0)) + header + source + sink
            + SimulatedDescriptors.interface(1, endpoints: 0, (1, 2, 0))
            + SimulatedDescriptors.interface(1, alternate: 1, endpoints: 1, (1, 2, 0)) + stream + format + endpoint
            + [7, USBDescriptorType.classEndpoint, 1, 0, 0, 0, 0]
        return SimulatedDescriptors.configuration(interfaces: 2, body)
    }
}
