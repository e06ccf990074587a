// Which uses of a disk are compatible: one table, the same as in the toolstack's own script.

/// Another use of the same bytes.
enum OtherUse: Hashable, Sendable {
    /// The host has it mounted.
    case mount(isReadOnly: Bool)
    /// Another guest's disk.
    case guest(ImageOptions.Access)
    /// A disk of the same guest: a second name for it, its device model's domain, or the guest itself, as it was before
    /// it was migrated to this host.
    case sameGuest
    /// QEMU or qemu-img, by the bytes that it has locked.
    case program(writes: Bool, refusesWriters: Bool)
}

/// The rules of /etc/xen/scripts/block (`check_sharing`), and QEMU's own where QEMU is the other.
enum SharingRules {
    static func permits(_ access: ImageOptions.Access, beside other: OtherUse) -> Bool {
        switch (access, other) {
        // `w!`: the administrator takes responsibility.
        case (.shared, _): true
        case (_, .sameGuest): true
        case (.readOnly, .mount(let isReadOnly)): isReadOnly
        case (.exclusive, .mount): false
        case (.readOnly, .guest(let other)): other != .exclusive
        case (.exclusive, .guest): false
        case (.readOnly, .program(let writes, _)): !writes
        case (.exclusive, .program(let writes, let refusesWriters)): !writes && !refusesWriters
        }
    }
}

/// A disk of another device in XenStore, whatever its backend.
public struct DiskNeighbour: Hashable, Sendable {
    /// How its image is identified.
    public enum Place: Hashable, Sendable {
        case path(String)
        /// `physical-device`.
        case device(UInt64)
    }
    /// For error messages: "disk xvda of domain 6".
    public let name: String
    public let place: Place
    public let access: ImageOptions.Access
    public let isSameGuest: Bool

    public init(name: String, place: Place, access: ImageOptions.Access, isSameGuest: Bool) {
        self.name = name
        self.place = place
        self.access = access
        self.isSameGuest = isSameGuest
    }

    var use: OtherUse { isSameGuest ? .sameGuest : .guest(access) }
}
