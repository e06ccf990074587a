// A disk as xl's configuration describes it.

/// What an xl disk line says (xl-disk-configuration(5)), as far as it concerns a disk that xenback serves.
public struct DiskLine: Equatable, Sendable {
    public enum Format: String, Sendable { case raw, qcow2, vhd, empty }
    public enum BackendType: String, Sendable { case phy, tap, qdisk }
    public enum Access: String, Sendable {
        case readOnly = "r"
        case readWrite = "w"
        /// Others write it as well: the guests have to coordinate that themselves.
        case sharedWrite = "w!"
    }

    /// The image; empty in a CD-ROM drive without a medium.
    public var target: String
    public var format: Format
    public var vdev: VirtualDisk
    public var access: Access
    public var cdrom: Bool
    /// nil: the daemon's own.
    public var script: String?
    /// Name or number of the domain that serves the disk; nil: this one.
    public var backendDomain: String?
    public var backendType: BackendType?
    public var directIOSafe: Bool
    /// nil: the daemon's default.
    public var discard: Bool?
    public var trusted: Bool?

    public init(
        target: String,
        format: Format = .raw,
        vdev: VirtualDisk,
        access: Access = .readWrite,
        cdrom: Bool = false,
        script: String? = nil,
        backendDomain: String? = nil,
        backendType: BackendType? = nil,
        directIOSafe: Bool = false,
        discard: Bool? = nil,
        trusted: Bool? = nil
    ) {
        self.target = target
        self.format = format
        self.vdev = vdev
        self.access = access
        self.cdrom = cdrom
        self.script = script
        self.backendDomain = backendDomain
        self.backendType = backendType
        self.directIOSafe = directIOSafe
        self.discard = discard
        self.trusted = trusted
    }

    /// The target with its format before it where that is not raw, as `params` has it: `vhd:/images/a.vhd`.
    public var qualifiedTarget: String {
        format == .qcow2 || format == .vhd ? "\(format.rawValue):\(target)" : target
    }

    /// CD-ROM drives have removable media (libxl writes `removable` for them only).
    public var removable: Bool { cdrom }

    /// The words of a command line as one disk line: `target=`, which takes the rest of a line, goes last.
    public static func joined(_ words: [String]) -> String {
        let targets = words.filter { $0.hasPrefix("target=") }
        return (words.filter { !$0.hasPrefix("target=") } + targets).joined(separator: ",")
    }

    /// Reads a line as xl does, old and new syntax, and the lines of xm: `tap2:tapdisk:vhd:/a.vhd,xvda,w`.
    public init(parsing line: String) throws(DeviceLineError) {
        var parser = DiskLineParser(line)
        self = try parser.parse()
    }
}
