// The bytes of one on-disk structure, and the big-endian numbers at fixed places in them.

/// A structure of fixed size, copied out of an image. Places are our own constants, so they are not checked twice.
package struct BigEndianBytes: Hashable, Sendable {
    package private(set) var bytes: [UInt8]

    package init(zeros count: Int) { bytes = [UInt8](repeating: 0, count: count) }

    /// Takes the first `count` bytes; what is missing is zero.
    package init(_ source: some Sequence<UInt8>, count: Int) {
        bytes = Array(source.prefix(count))
        bytes.append(contentsOf: repeatElement(0, count: count - bytes.count))
    }

    package subscript(u8 place: Int) -> UInt8 {
        get { bytes[place] }
        set { bytes[place] = newValue }
    }

    package subscript(u16 place: Int) -> UInt16 {
        get { UInt16(truncatingIfNeeded: number(at: place, count: 2)) }
        set { set(UInt64(newValue), at: place, count: 2) }
    }

    package subscript(u32 place: Int) -> UInt32 {
        get { UInt32(truncatingIfNeeded: number(at: place, count: 4)) }
        set { set(UInt64(newValue), at: place, count: 4) }
    }

    package subscript(u64 place: Int) -> UInt64 {
        get { number(at: place, count: 8) }
        set { set(newValue, at: place, count: 8) }
    }

    /// The bytes of a field. What is set is cut, or filled with zeros, to the field's size.
    package subscript(field: Range<Int>) -> [UInt8] {
        get { Array(bytes[field]) }
        set {
            let filled = newValue.prefix(field.count) + repeatElement(0, count: max(0, field.count - newValue.count))
            bytes.replaceSubrange(field, with: filled)
        }
    }

    /// Whether a field has no bit set.
    package func isZero(_ field: Range<Int>) -> Bool { bytes[field].allSatisfy { $0 == 0 } }

    /// Inverted sum of all bytes but those of `field`, where the sum itself is kept.
    package func invertedSum(without field: Range<Int>) -> UInt32 {
        ~(BigEndianBytes.sum(bytes[..<field.lowerBound]) &+ BigEndianBytes.sum(bytes[field.upperBound...]))
    }

    package static func sum(_ bytes: some Sequence<UInt8>) -> UInt32 { bytes.reduce(0) { $0 &+ UInt32($1) } }

    private func number(at place: Int, count: Int) -> UInt64 {
        bytes[place..<place + count].reduce(0) { $0 << 8 | UInt64($1) }
    }

    private mutating func set(_ value: UInt64, at place: Int, count: Int) {
        for index in 0..<count {
            bytes[place + index] = UInt8(truncatingIfNeeded: value >> UInt64(8 * (count - 1 - index)))
        }
    }
}
