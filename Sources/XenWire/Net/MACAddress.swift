// Ethernet addresses.

/// Six octets.
public struct MACAddress: Hashable, Sendable, CustomStringConvertible {
    /// The first octet on the wire in the lowest eight bits; the upper 16 bits are 0.
    public let rawValue: UInt64

    @inlinable init(rawValue: UInt64) { self.rawValue = rawValue & 0xFFFF_FFFF_FFFF }

    @inlinable
    public init(_ a: UInt8, _ b: UInt8, _ c: UInt8, _ d: UInt8, _ e: UInt8, _ f: UInt8) {
        let low = UInt64(a) | UInt64(b) &<< 8 | UInt64(c) &<< 16
        self.init(rawValue: low | UInt64(d) &<< 24 | UInt64(e) &<< 32 | UInt64(f) &<< 40)
    }

    /// The six bytes at `offset`, which is ours.
    @inlinable
    public init(_ bytes: some WireBytes, at offset: Int) {
        self.init(rawValue: UInt64(bytes.u32(offset)) | UInt64(bytes.u16(offset &+ 4)) &<< 32)
    }

    /// Parses `aa:bb:cc:dd:ee:ff`: two hexadecimal digits each, colons between them, nothing else.
    public init?(text: some StringProtocol) {
        let octets = text.split(separator: ":" as Character, omittingEmptySubsequences: false)
        guard octets.count == 6 else { return nil }
        var value: UInt64 = 0
        for (index, octet) in octets.enumerated() {
            guard octet.utf8.count == 2, octet.first != "+", octet.first != "-", let number = UInt8(octet, radix: 16)
            else { return nil }
            value |= UInt64(number) << UInt64(8 * index)
        }
        rawValue = value
    }

    public static let broadcast = MACAddress(rawValue: 0xFFFF_FFFF_FFFF)
    /// Multicast or broadcast.
    @inlinable public var isGroup: Bool { rawValue & 1 != 0 }
    @inlinable public var isBroadcast: Bool { rawValue == 0xFFFF_FFFF_FFFF }

    /// `aa:bb:cc:dd:ee:ff`
    public var description: String {
        (0..<6).map { index in
            let text = String(rawValue >> UInt64(8 * index) & 0xFF, radix: 16)
            return text.utf8.count == 1 ? "0" + text : text
        }.joined(separator: ":")
    }
}
