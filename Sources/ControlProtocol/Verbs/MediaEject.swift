// The verb MediaEject.

/// Takes the image out of a CD-ROM drive.
public struct MediaEject: ControlVerb {
    public static let name = "MediaEject"
    public typealias Reply = NoParameters

    /// Number or name.
    public var domain: String
    /// Name or number.
    public var device: String

    public init(domain: String, device: String) {
        self.domain = domain
        self.device = device
    }
}
