// Halves of packets that a SuperSpeed device has sent and its guest has not yet asked for.

internal import XenWire

/// The guest takes a bulk packet of 1024 bytes for two of 512 (`USBRingState.receive`), and may ask for the first alone. The second
/// is kept here, at most one for each endpoint, and is what the next URB of the endpoint begins with.
struct PacketRemainders {
    private var kept = [[UInt8]](repeating: [], count: 16)
    /// Those that a predecessor kept: bits of endpoint numbers.
    var lost: UInt16 = 0

    /// Bits of endpoint numbers: all that a successor would miss.
    var mask: UInt16 {
        kept.indices.reduce(lost) { kept[$1].isEmpty ? $0 : $0 | 1 << UInt16($1) }
    }

    /// - Parameter bytes: 1 … 512.
    mutating func keep(_ bytes: [UInt8], of endpoint: USBEndpointAddress) { kept[Int(endpoint.number)] = bytes }

    /// Takes what there is; nil if a predecessor took it with it.
    mutating func take(_ endpoint: USBEndpointAddress) -> [UInt8]? {
        let bit: UInt16 = 1 << UInt16(endpoint.number)
        if lost & bit != 0 {
            lost &= ~bit
            return nil
        }
        defer { kept[Int(endpoint.number)] = [] }
        return kept[Int(endpoint.number)]
    }

    /// The endpoint begins anew.
    mutating func forget(_ endpoint: USBEndpointAddress) {
        guard endpoint.direction == .in else { return }
        _ = take(endpoint)
        kept[Int(endpoint.number)] = []
    }
}
