// Frames that can be told apart and checked: a receiver counts lost, duplicated, reordered and corrupt ones.

public import XenWire

/// One flow of UDP over IPv4, its frames numbered from 0.
///
/// | bytes | what |
/// | --- | --- |
/// | 0 … 41 | Ethernet, IPv4, UDP; ports 9 and 10000 + flow |
/// | 42 … 45 | `xnb` and the flow's number |
/// | 46 … 53 | the frame's number |
/// | 54 … 61 | the time that it was sent at |
/// | 62 … | bytes that follow from flow and number |
public struct NetworkStream: Sendable, Hashable {
    /// Bytes of the shortest frame.
    public static let minByteCount = 62
    /// `xnb`, little-endian.
    private static let magic: UInt32 = 0x0062_6E78

    public let source: MACAddress
    public let destination: MACAddress
    public let flow: UInt8

    public init(from source: MACAddress, to destination: MACAddress, flow: UInt8 = 0) {
        self.source = source
        self.destination = destination
        self.flow = flow
    }

    /// Writes frame `number` into all bytes of `frame`, at least `minByteCount`.
    /// - Parameters:
    ///   - time: echoed by `Receiver`; any clock.
    ///   - blank: leaves the checksum blank, for frames that are sent so.
    public func write(_ number: UInt64, time: UInt64 = 0, blank: Bool = false, into frame: some WritableWireBytes) {
        let count = frame.byteCount
        precondition(count >= NetworkStream.minByteCount && count <= NetWire.maxPacket)
        frame.set64(destination.rawValue | source.rawValue << 48, at: 0)
        frame.set32(UInt32(truncatingIfNeeded: source.rawValue >> 16), at: 8)
        frame.set16(0x0008, at: 12)
        writeIPv4(count, frame)
        frame.set16(UInt16(9).byteSwapped, at: 34)
        frame.set16((10000 + UInt16(flow)).byteSwapped, at: 36)
        frame.set16(UInt16(count - 34).byteSwapped, at: 38)
        frame.set32(NetworkStream.magic | UInt32(flow) << 24, at: 42)
        frame.set64(number, at: 46)
        frame.set64(time, at: 54)
        var place = 62
        while place < count {
            let word = pattern(number, place)
            if count - place >= 8 { frame.set64(word, at: place) } else { frame.set8(UInt8(word & 255), at: place) }
            place += count - place >= 8 ? 8 : 1
        }
        let headers = PacketHeaders(parsing: frame, count: count)
        if blank {
            InternetChecksum.makeBlank(frame, headers: headers, count: count)
        } else {
            InternetChecksum.fill(frame, headers: headers, count: count)
        }
    }

    private func writeIPv4(_ count: Int, _ frame: some WritableWireBytes) {
        frame.set16(0x0045, at: 14)
        frame.set16(UInt16(count - 14).byteSwapped, at: 16)
        frame.set32(0, at: 18)
        frame.set32(0x1140, at: 22)
        // 10.88.x.y from the last octets of the addresses.
        frame.set32(0x580A | UInt32(truncatingIfNeeded: source.rawValue >> 32) << 16, at: 26)
        frame.set32(0x580A | UInt32(truncatingIfNeeded: destination.rawValue >> 32) << 16, at: 30)
        var checksum = InternetChecksum()
        checksum.add(frame, at: 14, count: 20)
        frame.set16(checksum.field, at: 24)
    }

    private func pattern(_ number: UInt64, _ place: Int) -> UInt64 {
        ((number &+ UInt64(flow) << 32) &+ UInt64(place)) &* 0x9E37_79B9_7F4A_7C15
    }

    /// Reads a frame of this stream.
    /// - Returns: nil if it is not one; `isRight` says whether its content is correct.
    public func read(_ frame: some WireBytes) -> (number: UInt64, time: UInt64, isRight: Bool)? {
        let count = frame.byteCount
        guard count >= NetworkStream.minByteCount, frame.u16(12) == 0x0008,
            frame.u32(42) == NetworkStream.magic | UInt32(flow) << 24
        else { return nil }
        let number = frame.u64(46)
        var place = 62
        var isRight = MACAddress(frame, at: 0) == destination && MACAddress(frame, at: 6) == source
        while place < count {
            let word = pattern(number, place)
            if count - place >= 8 {
                isRight = isRight && frame.u64(place) == word
            } else {
                isRight = isRight && frame.u8(place) == UInt8(word & 255)
            }
            place += count - place >= 8 ? 8 : 1
        }
        return (number, frame.u64(54), isRight)
    }

    /// What arrived of one stream.
    public struct Receiver: Sendable, Hashable {
        public let stream: NetworkStream
        public private(set) var received: UInt64 = 0
        public private(set) var bytes: UInt64 = 0
        /// Frames whose bytes are not what was sent.
        public private(set) var wrong: UInt64 = 0
        /// Frames that came after one with a higher number, doubled ones among them.
        public private(set) var late: UInt64 = 0
        /// The number that a frame with nothing lost before it has.
        public private(set) var next: UInt64 = 0

        public init(_ stream: NetworkStream) { self.stream = stream }

        /// Frames up to the highest number seen that did not come.
        public var lost: UInt64 { next > received ? next - received : 0 }

        /// Counts a frame.
        /// - Returns: when it was sent; nil if it does not belong to this stream.
        public mutating func take(_ frame: some WireBytes) -> UInt64? {
            guard let (number, time, isRight) = stream.read(frame) else { return nil }
            received += 1
            bytes += UInt64(frame.byteCount)
            if !isRight {
                wrong += 1
            } else if number >= next {
                next = number &+ 1
            } else {
                late += 1
            }
            return time
        }
    }
}
