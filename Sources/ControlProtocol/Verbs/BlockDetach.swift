// The verb BlockDetach.

/// Asks the frontend to release a disk and waits until it has.
public struct BlockDetach: ControlVerb {
    public static let name = "BlockDetach"
    public typealias Reply = NoParameters

    /// Number or name.
    public var domain: String
    /// Name or number.
    public var device: String
    /// Remove the disk if the frontend does not release it in time.
    public var force: Bool?

    public init(domain: String, device: String, force: Bool? = nil) {
        self.domain = domain
        self.device = device
        self.force = force
    }
}
