// What people ask of a live disk.

public import BackendCore

/// A disk's own words, beside what every device can do.
public protocol LiveDisk: DeviceBackend {
    /// Looks at the image's size again and tells the frontend.
    func resize() async throws(BackendFailure)
    /// Puts another image into a CD-ROM drive.
    /// - Parameter target: as in a disk line: a path, with words before it (`DiskTarget`).
    func insertMedium(_ target: String) async throws(BackendFailure)
    /// Empties the drive.
    func ejectMedium() async throws(BackendFailure)
}
