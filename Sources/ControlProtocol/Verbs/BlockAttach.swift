// The verb BlockAttach.

/// Attaches a disk to a running domain and waits until the backend has opened the image.
public struct BlockAttach: ControlVerb {
    public static let name = "BlockAttach"

    public struct Reply: Codable, Equatable, Sendable {
        public var device: Device

        public init(device: Device) {
            self.device = device
        }
    }

    /// Number or name.
    public var domain: String
    /// An xl disk line.
    public var disk: String

    public init(domain: String, disk: String) {
        self.domain = domain
        self.disk = disk
    }
}
