// Halves of packets that a SuperSpeed device has sent and the guest has not asked for yet.

internal import XenWire

/// The guest sees a bulk packet of 1024 bytes as two of 512 (`USBRingState.receive`), and may ask for the first alone.
/// The second is kept here, at most one per endpoint; the endpoint's next URB begins with it.
struct PacketRemainders {
    private var kept = [[UInt8]](repeating: [], count: 16)
    /// Those that a predecessor kept, as bits of endpoint numbers.
    var lost: UInt16 = 0

    /// Bits of endpoint numbers: all that a successor would miss.
    var mask: UInt16 {
        kept.indices.reduce(lost) { kept[$1].isEmpty ? $0 : $0 | 1 << UInt16($1) }
    }

    /// - Parameter bytes: 1 … 512.
    mutating func keep(_ bytes: [UInt8], of endpoint: USBEndpointAddress) { kept[Int(endpoint.number)] = bytes }

    /// Takes what was kept; nil if it was lost with a predecessor.
    mutating func take(_ endpoint: USBEndpointAddress) -> [UInt8]? {
        let bit: UInt16 = 1 << UInt16(endpoint.number)
        if lost & bit != 0 {
            lost &= ~bit
            return nil
        }
        defer { kept[Int(endpoint.number)] = [] }
        return kept[Int(endpoint.number)]
    }

    /// The endpoint starts over.
    mutating func forget(_ endpoint: USBEndpointAddress) {
        guard endpoint.direction == .in else { return }
        _ = take(endpoint)
        kept[Int(endpoint.number)] = []
    }
}
