// The verb GetVersion.

/// Which program is answering.
public struct GetVersion: ControlVerb {
    public static let name = "GetVersion"

    public struct Reply: Codable, Equatable, Sendable {
        /// The daemon's version.
        public var version: String
        /// Its process id.
        public var process: Int
        /// The interface's version (`ControlInterface.version`); nil from a daemon that is older than the number.
        public var interface: Int?

        public init(version: String, process: Int, interface: Int? = ControlInterface.version) {
            self.version = version
            self.process = process
            self.interface = interface
        }
    }

    public init() {}
}
