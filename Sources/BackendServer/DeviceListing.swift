// The devices in XenStore: one consistent snapshot of the backend directories of our own domain.

internal import BackendCore
internal import Hypervisor
internal import XenWire

/// One backend directory, as far as broker and worker care.
struct ListedDevice: Hashable, Sendable {
    var path: DevicePath
    /// nil: missing or not a number from 0 to 8.
    var state: XenbusState?
    var online: Bool
    /// A device class of ours claims it.
    var isOurs: Bool

    /// Closed and not to come back: only the toolstack still has something to do with it.
    var isOver: Bool { state == .closed && !online }
    /// Freshly made by the toolstack.
    var isNew: Bool { state == .initialising }
    /// Kind and index: the name in marks and files of its domain.
    var name: String { path.nameInDomain }
}

extension DevicePath {
    /// `vbd3/51712`.
    var nameInDomain: String { "\(kind)/\(index)" }
    /// `vbd3/7/51712`, as people call it.
    var shortName: String { "\(kind)/\(domain)/\(index)" }
}

/// All devices found by one scan.
struct DeviceListing: Hashable, Sendable {
    var devices: [DevicePath: ListedDevice] = [:]

    /// The keys that decide about ownership and life; a backend directory holds some twenty more.
    static let keys = [BusKeys.frontend, BusKeys.state, BusKeys.online, BusKeys.script]

    /// The domains that have devices of ours, closed for good or not.
    var domains: Set<DomainID> { Set(devices.values.lazy.filter(\.isOurs).map(\.path.domain)) }

    func devices(of domain: DomainID) -> [ListedDevice] {
        devices.values.filter { $0.path.domain == domain && $0.isOurs }.sorted { $0.path.index < $1.path.index }
    }

    /// Reads the directories of `kinds`, of one domain or of all.
    ///
    /// Names that are not numbers are not ours and are skipped.
    static func read(
        _ store: any XenStoreOperations,
        kinds: [DeviceKind],
        classes: DeviceClasses,
        own: DomainID,
        domain: DomainID? = nil
    ) throws(HypervisorFailure) -> DeviceListing {
        var listing = DeviceListing()
        for kind in kinds {
            let domains: [DomainID]
            if let domain {
                domains = [domain]
            } else {
                domains = try (store.directory(DevicePath.folder(of: kind)) ?? []).compactMap { DomainID(text: $0) }
            }
            for domain in domains {
                for name in try store.directory(DevicePath.folder(of: kind, for: domain)) ?? [] {
                    guard let index = UInt32(decimal: name) else { continue }
                    let path = DevicePath(kind: kind, domain: domain, index: index)
                    if let device = try read(store, path, classes: classes, own: own) { listing.devices[path] = device }
                }
            }
        }
        return listing
    }

    /// One directory; nil if the toolstack is still writing it or has removed it.
    private static func read(
        _ store: any XenStoreOperations,
        _ path: DevicePath,
        classes: DeviceClasses,
        own: DomainID
    ) throws(HypervisorFailure) -> ListedDevice? {
        var values: [String: String] = [:]
        for key in keys { values[key] = try store.read(path.key(key)) }
        guard values[BusKeys.frontend] != nil else { return nil }
        let keys = BackendNodes(path: path, own: own, values: values)
        return ListedDevice(
            path: path,
            state: values[BusKeys.state].flatMap { XenbusState(text: $0) },
            online: BusKeys.isOnline(values[BusKeys.online]),
            isOurs: classes.owner(of: keys) != nil
        )
    }
}
