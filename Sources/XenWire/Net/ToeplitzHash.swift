// The hash by which receivers spread packets over queues (netif.h, "Hash algorithms"; Microsoft's RSS).

/// A Toeplitz hash with its key. A value: queues keep a copy each.
public struct ToeplitzHash: Hashable, Sendable {
    /// Bytes of the longest key, enough for every hash of netif.h.
    @inlinable public static var maxKeyBytes: Int { 40 }

    // The key in eight-byte words, its first byte uppermost; what was not given is 0.
    @usableFromInline var key: InlineArray<5, UInt64>

    /// The empty key: every hash is 0.
    public init() { key = InlineArray(repeating: 0) }

    /// - Parameter count: bytes of the key, at most 40 (ours to guarantee).
    public init(key bytes: some WireBytes, count: Int) {
        precondition(count <= ToeplitzHash.maxKeyBytes)
        self.init()
        for place in 0..<count { key[place / 8] |= UInt64(bytes.u8(place)) << UInt64(56 - place % 8 * 8) }
    }

    public static func == (left: ToeplitzHash, right: ToeplitzHash) -> Bool {
        (0..<5).allSatisfy { left.key[$0] == right.key[$0] }
    }

    public func hash(into hasher: inout Hasher) {
        for index in 0..<5 { hasher.combine(key[index]) }
    }

    /// The hash of `count` bytes, and of four more where `ports` says: at most 36 bytes in all (ours to guarantee).
    @inlinable
    public func value(_ bytes: some WireBytes, at offset: Int, count: Int, ports: Int? = nil) -> UInt32 {
        precondition(count &+ (ports == nil ? 0 : 4) <= 36)
        var value: UInt32 = 0
        var place = 0
        while place < count {
            add(bytes.u32(offset &+ place).byteSwapped, at: place, to: &value)
            place &+= 4
        }
        if let ports { add(bytes.u32(ports).byteSwapped, at: place, to: &value) }
        return value
    }

    /// Adds four bytes of the input, the first uppermost, that stand at `place` (a multiple of 4, at most 32).
    @inlinable
    func add(_ input: UInt32, at place: Int, to value: inout UInt32) {
        // 64 bits of the key from `place` on.
        let word = place &>> 3
        let window = place & 4 == 0 ? key[word] : key[word] &<< 32 | key[word &+ 1] &>> 32
        var rest = input
        while rest != 0 {
            let bit = rest.leadingZeroBitCount
            value ^= UInt32(truncatingIfNeeded: window &>> UInt64(32 &- bit))
            rest &= ~(0x8000_0000 &>> UInt32(bit))
        }
    }
}
