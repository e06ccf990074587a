// The verb GetVersion.

/// Which program answers.
public struct GetVersion: ControlVerb {
    public static let name = "GetVersion"

    public struct Reply: Codable, Equatable, Sendable {
        /// The daemon's version.
        public var version: String
        /// Its process id.
        public var process: Int

        public init(version: String, process: Int) {
            self.version = version
            self.process = process
        }
    }

    public init() {}
}
