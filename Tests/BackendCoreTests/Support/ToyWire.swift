// The toy's protocol: a request names a grant and how many of its bytes; the response is their sum.

internal import BackendCore
internal import SharedRing
internal import XenWire

/// A request is id, grant and count of bytes; its response id and their sum, or `failed`.
enum ToyWire {
    static let format = SlotFormat(requestBytes: 16, responseBytes: 8)
    static let slots = 128
    static let failed = UInt32.max

    static func count(of request: Slot) -> Int { Int(min(request.u32(8), 4096)) }

    static func response(to request: Slot, _ sum: UInt32) -> WireWords {
        WireWords(low: UInt64(request.u32(0)) | UInt64(sum) << 32, high: 0)
    }
}

extension Slot {
    /// The copy that a request asks for.
    func addCopy(to copies: inout GrantCopyBatch, _ memory: PrivatePages, at place: Int) {
        copies.add(
            reference: GrantReference(u32(4)),
            pageOffset: 0,
            byteCount: UInt16(ToyWire.count(of: self)),
            intoGrant: false,
            pages: memory,
            privateOffset: place
        )
    }

    func sum(_ count: Int) -> UInt32 { (0..<count).reduce(0) { $0 &+ UInt32(u8($1)) } }
}
