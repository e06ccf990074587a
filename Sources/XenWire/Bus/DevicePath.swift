// Where a device lives in XenStore: `backend/<kind>/<domid>/<index>` below the backend's own domain.

/// The directory below `backend/` that a device lives in, as libxl names it (libxl_types_internal.idl).
public enum DeviceKind: String, Hashable, Sendable, CaseIterable, CustomStringConvertible {
    case vif, vif2, vbd, vbd3, qdisk, vusb, qusb, pci
    public var description: String { rawValue }
}

/// One device of one frontend domain, as its backend's directory names it.
public struct DevicePath: Hashable, Sendable, CustomStringConvertible {
    public let kind: DeviceKind
    /// The frontend's domain.
    public let domain: DomainID
    /// The device's number in that domain (`51712` for xvda; 0 … for others).
    public let index: UInt32

    public init(kind: DeviceKind, domain: DomainID, index: UInt32) {
        self.kind = kind
        self.domain = domain
        self.index = index
    }

    /// Parses `backend/vbd/7/51712`, as in the hotplug script's `XENBUS_PATH`.
    public init?(text: some StringProtocol) {
        let parts = text.split(separator: "/", omittingEmptySubsequences: false)
        guard parts.count == 4, parts[0] == "backend", let kind = DeviceKind(rawValue: String(parts[1])),
            let domain = DomainID(text: parts[2]), let index = UInt32(decimal: parts[3])
        else { return nil }
        self.init(kind: kind, domain: domain, index: index)
    }

    /// `backend/vbd/7/51712`, relative to the backend domain's home.
    public var description: String { "backend/\(kind)/\(domain)/\(index)" }
}
