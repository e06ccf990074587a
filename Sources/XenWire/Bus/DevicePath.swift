// Where a device is in XenStore.

/// One backend device: `backend/<kind>/<frontend's domid>/<device number>`, relative to the backend domain's home.
public struct DevicePath: Hashable, Comparable, Sendable, CustomStringConvertible {
    public let kind: DeviceKind
    /// The frontend's domain.
    public let domain: DomainID
    /// The device number: 51712 for xvda (docs/misc/vbd-interface.txt), 0, 1, … for others.
    public let index: UInt32

    public init(kind: DeviceKind, domain: DomainID, index: UInt32) {
        self.kind = kind
        self.domain = domain
        self.index = index
    }

    /// Parses `backend/vbd/7/51712` or `/local/domain/<backend's domid>/backend/vbd/7/51712`, strictly: no trailing
    /// slash, no leading zero, no further component.
    public init?(text: some StringProtocol) {
        var parts = text.split(separator: "/" as Character, omittingEmptySubsequences: false).map { String($0) }
        if parts.first == "" {
            guard parts.count == 8, parts[1] == "local", parts[2] == "domain", DomainID(text: parts[3]) != nil else {
                return nil
            }
            parts.removeFirst(4)
        }
        guard parts.count == 4, parts[0] == "backend", let kind = DeviceKind(rawValue: parts[1]),
            let domain = DomainID(text: parts[2]), domain.description == parts[2],
            let index = UInt32(decimal: parts[3]), String(index) == parts[3]
        else { return nil }
        self.init(kind: kind, domain: domain, index: index)
    }

    /// Relative to the backend domain's home, as libxenstore takes it in that domain: `backend/vbd/7/51712`.
    public var relative: String { "\(DevicePath.folder(of: kind, for: domain))/\(index)" }

    /// From the root of XenStore: `/local/domain/0/backend/vbd/7/51712`.
    public func absolute(in backend: DomainID) -> String { "\(backend.home)/\(relative)" }

    /// Where the frontend's half is expected: `/local/domain/7/device/vbd/51712`.
    public var frontend: String { "\(domain.home)/device/\(kind.frontendKind)/\(index)" }

    /// The node for the error, as named by Linux's `xenbus_dev_error`: `error/backend/vbd/7/51712/error`.
    public var errorNode: String { "error/\(relative)/error" }

    /// A key of the backend's half, relative to its home: `backend/vbd/7/51712/state`.
    public func key(_ name: String) -> String { "\(relative)/\(name)" }

    /// A key of the frontend's half: `/local/domain/7/device/vbd/51712/state`.
    public func frontendKey(_ name: String) -> String { "\(frontend)/\(name)" }

    /// `backend/vbd`: one child for each domain that has devices of this kind.
    public static func folder(of kind: DeviceKind) -> String { "backend/\(kind.rawValue)" }

    /// `backend/vbd/7`: one child for each device of a domain.
    public static func folder(of kind: DeviceKind, for domain: DomainID) -> String {
        "backend/\(kind.rawValue)/\(domain)"
    }

    public static func < (left: DevicePath, right: DevicePath) -> Bool {
        (left.domain, left.kind.rawValue, left.index) < (right.domain, right.kind.rawValue, right.index)
    }

    /// The relative path.
    public var description: String { relative }
}
