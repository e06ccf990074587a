// The verb MediaInsert.

/// Puts an image into a CD-ROM drive, in place of the one that is in it.
public struct MediaInsert: ControlVerb {
    public static let name = "MediaInsert"
    public typealias Reply = NoParameters

    /// Number or name.
    public var domain: String
    /// Name or number.
    public var device: String
    /// The image's path.
    public var target: String

    public init(domain: String, device: String, target: String) {
        self.domain = domain
        self.device = device
        self.target = target
    }
}
