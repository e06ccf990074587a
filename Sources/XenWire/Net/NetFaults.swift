// What a network frontend can do wrong in a ring, by what follows from it.

/// A frontend that cannot be trusted to know what a packet is: its device is closed, as xen-netback does
/// (`xenvif_fatal_tx_err`). Nothing else is affected, and this can be said from anywhere (XSA-39, XSA-90).
public enum NetRingFault: Error, Hashable, Sendable, CustomStringConvertible {
    /// More slots after a packet's first than `NetWire.fatalSlots`.
    case tooManySlots
    /// An extra was announced, and the ring ends.
    case missingExtra
    /// More data were announced, and the ring ends.
    case missingData
    /// A type of extra that netif.h does not have, or 0.
    case unknownExtra(UInt8)
    /// A slot's bytes do not lie in its page, an empty one's included (XSA-448).
    case crossesPage(offset: UInt16, size: UInt16)
    /// A packet in segments of 0 bytes.
    case segmentationSize
    /// A packet in segments of no known kind.
    case segmentationKind(UInt8)

    public var description: String {
        switch self {
        case .tooManySlots: "a packet of more than \(NetWire.fatalSlots + 1) slots"
        case .missingExtra: "a packet whose extra is missing"
        case .missingData: "a packet whose last slots are missing"
        case .unknownExtra(let type): "an extra of type \(type)"
        case .crossesPage(let offset, let size): "a slot of \(size) bytes at \(offset) of its page"
        case .segmentationSize: "a packet in segments of 0 bytes"
        case .segmentationKind(let kind): "a packet in segments of type \(kind)"
        }
    }
}

/// A packet that is dropped: every one of its slots is answered with an error, and the ring continues.
public enum TransmitFault: Error, Hashable, Sendable, CustomStringConvertible {
    /// More slots after the first than `NetWire.maxFurtherSlots` (XSA-432), but not enough to be malicious.
    case tooManySlots
    /// The slots hold more than the packet's size: buggy frontends do so with packets of 64 KiB and more.
    case sizeMismatch
    /// The first slot has fewer bytes than an Ethernet header.
    case firstTooShort(Int)

    public var description: String {
        switch self {
        case .tooManySlots: "more than \(NetWire.maxFurtherSlots + 1) slots"
        case .sizeMismatch: "slots that hold more than the packet"
        case .firstTooShort(let count): "a first slot of \(count) bytes"
        }
    }
}
