// The verb List.

/// All devices of all domains.
public struct List: ControlVerb {
    public static let name = "List"

    public struct Reply: Codable, Equatable, Sendable {
        public var devices: [Device]

        public init(devices: [Device]) {
            self.devices = devices
        }
    }

    public init() {}
}
