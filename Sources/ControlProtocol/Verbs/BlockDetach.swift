// The verb BlockDetach.

/// Asks the frontend to give a disk up and waits until it did.
public struct BlockDetach: ControlVerb {
    public static let name = "BlockDetach"
    public typealias Reply = NoParameters

    /// Number or name.
    public var domain: String
    /// Name or number.
    public var device: String
    /// Take the disk away if the frontend does not let go in time.
    public var force: Bool?

    public init(domain: String, device: String, force: Bool? = nil) {
        self.domain = domain
        self.device = device
        self.force = force
    }
}
