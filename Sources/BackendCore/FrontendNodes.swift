// What a frontend wrote about itself, read once, every number checked.

public import XenWire

/// An invalid key of the frontend: its device is closed.
public struct FrontendNodeFault: Error, Hashable, Sendable, CustomStringConvertible {
    public let key: String
    public let problem: String

    public init(_ key: String, _ problem: String) {
        self.key = key
        self.problem = problem
    }
    public var description: String { "\(key) \(problem)" }
}

/// The values of a frontend's keys, by their names below its directory. Each was read exactly once, so that no later
/// change can undo a check (XSA-155 applies to XenStore as well).
public struct FrontendNodes: Sendable {
    private let values: [String: String]

    public init(_ values: [String: String]) { self.values = values }

    public subscript(key: String) -> String? { values[key] }

    /// A number that must be there.
    public func number(_ key: String, in range: ClosedRange<UInt32>) throws(FrontendNodeFault) -> UInt32 {
        guard let text = values[key] else { throw FrontendNodeFault(key, "is missing") }
        guard let number = UInt32(decimal: text) else {
            throw FrontendNodeFault(key, "is not a number: \(FrontendNodes.quoted(text))")
        }
        guard range.contains(number) else {
            throw FrontendNodeFault(key, "is \(number), allowed are \(range.lowerBound) … \(range.upperBound)")
        }
        return number
    }

    /// A port of ours to bind to: 1 … 2¹⁷ − 1 (the FIFO ABI; public/event_channel.h, EVTCHN_FIFO_NR_CHANNELS).
    public func port(_ key: String) throws(FrontendNodeFault) -> EventChannelPort {
        EventChannelPort(try number(key, in: 1...(1 << 17) - 1))
    }

    /// A grant reference; any number can be one.
    public func reference(_ key: String) throws(FrontendNodeFault) -> GrantReference {
        GrantReference(try number(key, in: 0...UInt32.max))
    }

    /// A feature flag as Linux's `xenbus_read_unsigned` reads it: missing or malformed means 0.
    public func flag(_ key: String) -> Bool { values[key].flatMap { UInt32(decimal: $0) } ?? 0 != 0 }

    /// A frontend's text made safe for a log line: short, printable ASCII only.
    public static func quoted(_ text: String?) -> String {
        let printable = (text ?? "").unicodeScalars.prefix(32).map { (0x20..<0x7F).contains($0.value) ? $0 : "?" }
        return "'\(String(String.UnicodeScalarView(printable)))'"
    }
}
