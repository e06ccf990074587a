// Refcounts of every width (docs/interop/qcow2.txt, "Host cluster management").

/// How refcounts stand in their blocks.
struct QCOW2RefcountLayout: Equatable {
    /// Bits of one: 2 to the power of this.
    let order: UInt64
    let clusterBits: UInt64

    /// Clusters that a block counts, as a power of two.
    var blockBits: UInt64 { clusterBits &+ 3 &- order }
    var maximum: UInt64 { order == 6 ? .max : UInt64(1) << (UInt64(1) << order) &- 1 }

    /// The byte that a cluster's count begins in, within its block; its width there; and for less than a byte how far it
    /// is shifted: from the least significant bits on.
    func position(of cluster: UInt64) -> (byte: UInt64, width: Int, shift: UInt64) {
        let index = cluster & (1 << blockBits &- 1)
        if order >= 3 { return (index << (order &- 3), 1 << Int(truncatingIfNeeded: order &- 3), 0) }
        let perByte = UInt64(8) >> order
        return (index / perByte, 1, (index % perByte) << order)
    }

    /// A count in a block's bytes.
    func value(of cluster: UInt64, in block: [UInt8]) -> UInt64 {
        let (byte, width, shift) = position(of: cluster)
        let at = Int(truncatingIfNeeded: byte)
        let raw: UInt64 =
            switch width {
            case 1: UInt64(block[at])
            case 2: UInt64(block.bigEndian(at: at, as: UInt16.self) ?? 0)
            case 4: UInt64(block.bigEndian(at: at, as: UInt32.self) ?? 0)
            default: block.bigEndian(at: at, as: UInt64.self) ?? 0
            }
        return order >= 3 ? raw : raw >> shift & maximum
    }

    func set(_ value: UInt64, of cluster: UInt64, in block: inout [UInt8]) {
        let (byte, width, shift) = position(of: cluster)
        let at = Int(truncatingIfNeeded: byte)
        switch width {
        case 1 where order < 3:
            block[at] = UInt8(truncatingIfNeeded: UInt64(block[at]) & ~(maximum << shift) | value << shift)
        case 1: block[at] = UInt8(truncatingIfNeeded: value)
        case 2: block.putBigEndian(UInt16(truncatingIfNeeded: value), at: at)
        case 4: block.putBigEndian(UInt32(truncatingIfNeeded: value), at: at)
        default: block.putBigEndian(value, at: at)
        }
    }
}
