// What the other end of a message ring can do wrong with the ring itself.

public import XenWire

/// Any of these closes the link; nothing was consumed or produced.
public enum MessageRingFault: Error, Hashable, Sendable, CustomStringConvertible {
    /// `prod` is further ahead of what we consumed than the ring has bytes, or went backwards.
    case producerOutOfRange(producer: UInt32, consumed: UInt32, ringBytes: UInt32)
    /// `prod` is not a multiple of 8.
    case producerUnaligned(UInt32)
    /// `cons` is beyond what we published, or went backwards.
    case consumerOutOfRange(consumer: UInt32, published: UInt32, ringBytes: UInt32)
    /// `cons` is not a multiple of 8.
    case consumerUnaligned(UInt32)
    /// A size that is no multiple of 8, or smaller than a message.
    case badSize(NetChannel2Header)
    /// A message that goes on beyond what was produced.
    case beyondProduced(NetChannel2Header, available: UInt32)
    /// A message that goes on beyond the ring's end.
    case crossesEnd(NetChannel2Header, offset: UInt32)

    public var description: String {
        switch self {
        case .producerOutOfRange(let producer, let consumed, let ringBytes):
            "prod is \(producer), \(consumed) were consumed, the ring has \(ringBytes) bytes"
        case .producerUnaligned(let producer): "prod is \(producer), no multiple of 8"
        case .consumerOutOfRange(let consumer, let published, let ringBytes):
            "cons is \(consumer), \(published) were produced, the ring has \(ringBytes) bytes"
        case .consumerUnaligned(let consumer): "cons is \(consumer), no multiple of 8"
        case .badSize(let header): "a message of type \(header.type.rawValue) with \(header.size) bytes"
        case .beyondProduced(let header, let available):
            "a message of \(header.size) bytes, of which only \(available) were produced"
        case .crossesEnd(let header, let offset):
            "a message of \(header.size) bytes at \(offset), beyond the ring's end"
        }
    }
}
