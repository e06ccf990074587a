// The three layouts of a block ring's slots, which are two, which differ by one number.

/// How a frontend's compiler laid out `blkif.h`, named by its `protocol` key (public/io/protocols.h).
///
/// On x86-32 a 64-bit member is aligned to 4 bytes, elsewhere to 8. In every structure of blkif.h this moves `id` and
/// all members behind it by 4 bytes and nothing else (checked with `gcc -m32` and `gcc -m64` on the header):
///
/// | | x86-32 | x86-64, arm |
/// | --- | --- | --- |
/// | request, stride of the ring | 108 | 112 |
/// | response | 12 | 16 |
/// | `id` | 4 | 8 |
/// | `sector_number` | 12 | 16 |
/// | `seg[0]`, `nr_sectors`, the indirect request's `handle` | 20 | 24 |
/// | `indirect_grefs[0]` | 24 | 28 |
///
/// Operation (0), segment count or flag (1) and `handle` or the indirect count (2) stay, and so does the response:
/// `id` 0, `operation` 8, `status` 10.
public enum BlockABI: String, Sendable, CaseIterable {
    // The names of protocols.h.
    // swift-format-ignore: AlwaysUseLowerCamelCase
    case x86_32 = "x86_32-abi"
    // swift-format-ignore: AlwaysUseLowerCamelCase
    case x86_64 = "x86_64-abi"
    case arm = "arm-abi"

    /// This program's own (protocols.h, `XEN_IO_PROTO_ABI_NATIVE`).
    public static var native: BlockABI {
        #if arch(arm64)
            .arm
        #elseif arch(x86_64)
            .x86_64
        #else
            #error("no Xen ABI for this processor")
        #endif
    }

    /// Reads the frontend's `protocol` key.
    ///
    /// A missing key means the native ABI, according to blkif.h and in Linux's blkback. QEMU and tapback take x86-32
    /// instead, for frontends older than the key; today libxl writes it for every PV guest and blkfront in HVM and PVH
    /// guests writes it itself, so only 64-bit frontends written to the header's letter are without.
    /// - Returns: nil for a name that is not one of the three.
    public init?(protocolKey: String?) {
        guard let protocolKey else {
            self = .native
            return
        }
        self.init(rawValue: protocolKey)
    }

    /// How far `id` and what follows lie behind their place on x86-32.
    @inlinable var shift: Int {
        switch self {
        case .x86_32: 0
        case .x86_64, .arm: 4
        }
    }

    /// Bytes of a request, and from one slot of the ring to the next.
    @inlinable public var requestSize: Int { 108 &+ shift }
    /// Bytes of a response.
    @inlinable public var responseSize: Int { 12 &+ shift }
    @inlinable var idOffset: Int { 4 &+ shift }
    @inlinable var sectorOffset: Int { 12 &+ shift }
    @inlinable var segmentsOffset: Int { 20 &+ shift }
    @inlinable var discardCountOffset: Int { 20 &+ shift }
    @inlinable var indirectHandleOffset: Int { 20 &+ shift }
    @inlinable var indirectGrantsOffset: Int { 24 &+ shift }
}
