// Bytes for tests: what a private slot is in the daemon.

import XenWire

/// An array seen as a slot.
final class TestBytes: WritableWireBytes {
    var bytes: [UInt8]
    init(_ bytes: [UInt8]) { self.bytes = bytes }
    convenience init(count: Int, filledWith byte: UInt8 = 0) { self.init([UInt8](repeating: byte, count: count)) }

    /// From hexadecimal digits, blanks between them.
    convenience init(_ text: String) {
        let digits = text.filter { !$0.isWhitespace }.utf8.map { UInt8(String(UnicodeScalar($0)), radix: 16)! }
        self.init(stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] })
    }

    var byteCount: Int { bytes.count }
    private func number(_ offset: Int, _ count: Int) -> UInt64 {
        (0..<count).reduce(0) { $0 | UInt64(bytes[offset + $1]) << UInt64(8 * $1) }
    }
    private func set(_ value: UInt64, _ offset: Int, _ count: Int) {
        for index in 0..<count { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * index)) }
    }
    func u8(_ offset: Int) -> UInt8 { bytes[offset] }
    func u16(_ offset: Int) -> UInt16 { UInt16(number(offset, 2)) }
    func u32(_ offset: Int) -> UInt32 { UInt32(number(offset, 4)) }
    func u64(_ offset: Int) -> UInt64 { number(offset, 8) }
    func forEachU64(_ offset: Int, count: Int, _ body: (UInt64) -> Void) {
        for index in 0..<count { body(u64(offset + 8 * index)) }
    }
    func set8(_ value: UInt8, at offset: Int) { set(UInt64(value), offset, 1) }
    func set16(_ value: UInt16, at offset: Int) { set(UInt64(value), offset, 2) }
    func set32(_ value: UInt32, at offset: Int) { set(UInt64(value), offset, 4) }
    func set64(_ value: UInt64, at offset: Int) { set(value, offset, 8) }
}
