// The numbers Xen names things by: domains, grants, event channel ports.

/// A domain's number, as in `/local/domain/<domid>` (public/xen.h, `domid_t`).
public struct DomainID: Hashable, Comparable, Sendable, CustomStringConvertible {
    /// 0 … 0x7FEF; larger numbers are reserved by Xen (`DOMID_FIRST_RESERVED`).
    public let rawValue: UInt16

    /// The first number Xen keeps for itself (public/xen.h, `DOMID_FIRST_RESERVED`).
    public static let firstReserved: UInt16 = 0x7FF0

    /// The initial domain.
    public static let initial = DomainID(unchecked: 0)

    /// - Returns: nil if `rawValue` is reserved.
    @inlinable
    public init?(_ rawValue: UInt16) {
        guard rawValue < DomainID.firstReserved else { return nil }
        self.rawValue = rawValue
    }

    /// Parses a decimal number as XenStore holds it: digits only, no sign, no blanks.
    public init?(text: some StringProtocol) {
        guard let number = UInt16(decimal: text) else { return nil }
        self.init(number)
    }

    @usableFromInline
    init(unchecked rawValue: UInt16) { self.rawValue = rawValue }

    public static func < (left: DomainID, right: DomainID) -> Bool { left.rawValue < right.rawValue }
    public var description: String { String(rawValue) }
}

extension DomainID {
    /// One child for each domain: `/local/domain`.
    public static let homes = "/local/domain"
    /// Where the domain's nodes are: `/local/domain/7`. Others but dom0 may not read it.
    public var home: String { "\(DomainID.homes)/\(self)" }
    /// The node with the name that its administrator gave it.
    public var nameNode: String { "\(home)/name" }
}

/// A grant reference: an index into the granting domain's grant table (public/grant_table.h, `grant_ref_t`).
public struct GrantReference: Hashable, Sendable {
    public let rawValue: UInt32
    @inlinable public init(_ rawValue: UInt32) { self.rawValue = rawValue }
}

/// One end of an event channel in one domain (public/event_channel.h, `evtchn_port_t`).
public struct EventChannelPort: Hashable, Sendable {
    public let rawValue: UInt32
    @inlinable public init(_ rawValue: UInt32) { self.rawValue = rawValue }
}

extension FixedWidthInteger {
    /// Parses decimal digits strictly: `"+1"`, `" 1"`, `""` and numbers that do not fit give nil.
    public init?(decimal text: some StringProtocol) {
        let digits = text.utf8
        guard !digits.isEmpty, digits.count <= 20, digits.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) else { return nil }
        self.init(text, radix: 10)
    }
}
