// What can be wrong with an URB, and the answer each wrong becomes.

/// A frontend's URB that is refused. It is answered; the controller continues.
public enum URBFault: Error, Hashable, Sendable, CustomStringConvertible {
    /// Port 0, or one that the controller does not have.
    case port(UInt8, count: Int)
    /// Bits of the pipe that usbif.h does not define.
    case undefinedPipeBits(UInt32)
    /// Bits of `transfer_flags` that usbif.h does not define.
    case undefinedFlags(UInt16)
    /// Endpoint 0 is for control (USB 2.0, 5.5).
    case typeOfEndpointZero(USBTransferType)
    /// More segments than an URB has, the frame descriptors' included.
    case segmentCount(buffer: Int, frames: Int)
    /// An empty segment, or one that ends beyond its page (XSA-448).
    case segmentBounds(index: Int, offset: UInt16, length: UInt16)
    /// `buffer_length` is not what the segments hold.
    case byteCount(UInt16, segments: Int)
    /// The setup packet announces more data than the buffer takes.
    case setupLength(UInt16, buffer: Int)
    /// The setup packet moves data against the pipe.
    case setupDirection
    /// 0 packets, or more than `USBWire.maxPackets`.
    case packetCount(Int)
    /// The frame descriptors' segments do not hold one descriptor for each packet.
    case frameBytes(Int, packets: Int)
    /// A packet that is not within the buffer.
    case packetBounds(index: Int, offset: UInt32, length: UInt32)
    /// A packet that begins before the end of the one before it.
    case packetOverlap(index: Int)
    /// A packet of more bytes than USB 2.0 moves in a microframe.
    case packetLength(index: Int, UInt32)

    /// The one place where faults become answers.
    public var status: URBStatus {
        switch self {
        case .port: .noDevice
        case .undefinedPipeBits, .undefinedFlags, .typeOfEndpointZero, .segmentCount, .segmentBounds, .byteCount,
            .setupLength, .setupDirection, .packetCount, .frameBytes, .packetBounds, .packetOverlap, .packetLength:
            .invalid
        }
    }

    public var description: String {
        switch self {
        case .port(let number, let count): "port \(number) of \(count)"
        case .undefinedPipeBits(let bits): "a pipe with the undefined bits \(bits)"
        case .undefinedFlags(let flags): "the undefined transfer flags \(flags)"
        case .typeOfEndpointZero(let type): "an \(type) transfer on endpoint 0"
        case .segmentCount(let buffer, let frames):
            "\(buffer) segments and \(frames) of frame descriptors, \(USBWire.maxSegments) allowed"
        case .segmentBounds(let index, let offset, let length):
            "segment \(index) has \(length) bytes at \(offset) of its page"
        case .byteCount(let count, let segments): "\(count) bytes in segments of \(segments)"
        case .setupLength(let length, let buffer): "a setup packet for \(length) bytes and a buffer of \(buffer)"
        case .setupDirection: "a setup packet against the pipe's direction"
        case .packetCount(let count): "\(count) packets, 1 … \(USBWire.maxPackets) allowed"
        case .frameBytes(let count, let packets): "\(count) bytes of frame descriptors for \(packets) packets"
        case .packetBounds(let index, let offset, let length):
            "packet \(index) has \(length) bytes at \(offset), beyond the buffer"
        case .packetOverlap(let index): "packet \(index) begins before the end of the one before it"
        case .packetLength(let index, let length): "packet \(index) has \(length) bytes"
        }
    }
}
