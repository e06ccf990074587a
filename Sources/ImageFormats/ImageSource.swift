// An image's file as parsers, checkers and makers see it, away from the loops.

public import SystemPackage

/// Bytes of a file, read by offset. For opening and checking, which may wait.
public protocol ImageSource {
    /// The file's length in bytes.
    var byteCount: UInt64 { get }
    /// Reads `count` bytes; what lies behind the file's end is zero.
    func read(at offset: UInt64, count: Int) throws(Errno) -> [UInt8]
}

/// What a repair does to a file, with the same rules of order as a plan.
public protocol ImageTarget: ImageSource {
    func write(_ bytes: [UInt8], at offset: UInt64) throws(Errno)
    func flush() throws(Errno)
}

/// A new image's file: pieces on a file of zeroes.
public struct ImageDraft: Equatable, Sendable {
    public var byteCount: UInt64
    public var pieces: [Piece] = []

    public struct Piece: Equatable, Sendable {
        public var offset: UInt64
        public var bytes: [UInt8]
    }

    public init(byteCount: UInt64) { self.byteCount = byteCount }

    public mutating func put(_ bytes: [UInt8], at offset: UInt64) { pieces.append(Piece(offset: offset, bytes: bytes)) }
}

/// What a check found. Findings are limited in number; the counts are not.
public struct ImageCheckReport: Equatable, Sendable {
    /// How bad a finding is.
    public enum Severity: Sendable {
        /// Space that is accounted for and not used: harmless.
        case leak
        /// Something that can lose data.
        case corruption
    }

    public struct Finding: Equatable, Sendable {
        public var severity: Severity
        public var text: String
    }

    public static let findingLimit = 64
    public private(set) var findings: [Finding] = []
    public private(set) var leaks: UInt64 = 0
    public private(set) var corruptions: UInt64 = 0
    /// Clusters or blocks that hold data, and all that the disk has.
    public var allocatedUnits: UInt64 = 0
    public var totalUnits: UInt64 = 0

    public init() {}

    public var isClean: Bool { leaks == 0 && corruptions == 0 }

    public mutating func add(_ severity: Severity, _ text: @autoclosure () -> String) {
        switch severity {
        case .leak: leaks &+= 1
        case .corruption: corruptions &+= 1
        }
        if findings.count < ImageCheckReport.findingLimit { findings.append(Finding(severity: severity, text: text())) }
    }
}

/// Big-endian values in bytes that were read.
extension [UInt8] {
    /// nil if they do not reach that far.
    func bigEndian<Value: FixedWidthInteger>(at offset: Int, as type: Value.Type = Value.self) -> Value? {
        let width = Value.bitWidth / 8
        guard offset >= 0, offset <= count &- width else { return nil }
        var value: Value = 0
        for index in offset..<offset &+ width {
            value =
                width == 1
                ? Value(truncatingIfNeeded: self[index]) : value << 8 | Value(truncatingIfNeeded: self[index])
        }
        return value
    }

    mutating func putBigEndian(_ value: some FixedWidthInteger, at offset: Int) {
        let width = value.bitWidth / 8
        for index in 0..<width { self[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * (width - 1 - index))) }
    }
}
