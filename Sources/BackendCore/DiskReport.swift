// What a disk tells about itself.

/// The facts of one disk.
public struct DiskReport: Hashable, Sendable {
    /// The image; nil in an empty CD-ROM drive.
    public var target: String?
    public var isReadOnly: Bool
    public var isCDROM: Bool
    /// Sectors of 512 bytes; nil while no image is open.
    public var sectorCount: UInt64?
    /// Bytes of a logical block; nil while no image is open.
    public var logicalBlockSize: Int?
    /// What was negotiated, for people; nil while no frontend is connected.
    public var connection: String?

    public init(target: String?, isReadOnly: Bool, isCDROM: Bool) {
        self.target = target
        self.isReadOnly = isReadOnly
        self.isCDROM = isCDROM
    }

    var details: [DeviceReport.Detail] {
        var details: [DeviceReport.Detail] = [
            .init("image", target ?? "(empty drive)"), .init("mode", isReadOnly ? "read-only" : "read-write"),
        ]
        if let sectorCount { details.append(.init("size", "\(sectorCount &* 512) bytes")) }
        if let logicalBlockSize { details.append(.init("sector-size", "\(logicalBlockSize)")) }
        if let connection { details.append(.init("connection", connection)) }
        return details
    }
}
