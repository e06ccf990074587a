// What the broker needs of the host's network: keeping interfaces over a worker's death, and removing leftovers.

internal import HostIO
internal import HostNetwork
internal import Synchronization
internal import XenWire

#if canImport(Glibc)
    internal import Glibc
#endif

/// The host's interfaces that belong to devices. Calls may block.
protocol InterfaceKeeper: Sendable {
    /// Keeps the link of an interface up while the result lives, whoever's queues come and go.
    func park(_ owner: String) throws(HostFailure) -> any Sendable
    /// Releases what a former process of the service kept for any other owner.
    func forgetOthers(than owners: Set<String>)
    /// The owners of all interfaces of this service.
    func owners() throws(HostFailure) -> [String]
    /// Removes an interface; no error if it is gone.
    func remove(_ owner: String) throws(HostFailure)
}

/// The running kernel's. The service manager has a copy of every parked queue, so that links outlive all processes of
/// the service at once: its restart, its upgrade, and a broker and worker that die together.
final class KernelInterfaces: InterfaceKeeper {
    /// Opens a queue and takes it out of service.
    typealias Parking = @Sendable (_ owner: String) throws(HostFailure) -> any KeptDescriptor

    private let open: Parking
    /// A former process's, by owner. They keep the links up until this process has parked queues of its own.
    private let inherited: Mutex<[String: [ServiceManager.Stored]]>
    private let lastNumber = Atomic(0)

    /// - Parameter stored: what the service manager kept; anything but a parked queue is closed.
    init(
        stored: [ServiceManager.Stored],
        open: @escaping Parking = { (owner) throws(HostFailure) in try ParkedQueue(owner: owner) }
    ) {
        self.open = open
        inherited = Mutex(Dictionary(grouping: stored) { KernelInterfaces.owner(ofName: $0.name) })
    }

    func park(_ owner: String) throws(HostFailure) -> any Sendable {
        let queue = try open(owner)
        let number = lastNumber.wrappingAdd(1, ordering: .relaxed).newValue
        let kept = StoredQueue(queue, as: "\(owner)#\(getpid()).\(number)")
        forget(inherited.withLock { $0.removeValue(forKey: owner) } ?? [])
        return kept
    }

    func forgetOthers(than owners: Set<String>) {
        let others = inherited.withLock { inherited in
            let others = inherited.filter { !owners.contains($0.key) }
            for owner in others.keys { inherited[owner] = nil }
            return others
        }
        for stored in others.values { forget(stored) }
    }

    private func forget(_ stored: [ServiceManager.Stored]) {
        for each in stored { try? ServiceManager.unstore(each.name) }
    }

    /// The name of a stored queue is its owner's, and a suffix that tells it from earlier ones.
    private static func owner(ofName name: String) -> String { String(name.prefix { $0 != "#" }) }

    func owners() throws(HostFailure) -> [String] { try KernelNetwork.leftovers().map(\.owner) }

    func remove(_ owner: String) throws(HostFailure) { try KernelNetwork.remove(owner: owner) }
}

/// Something that keeps a link by its descriptor.
protocol KeptDescriptor: Sendable {
    var descriptor: CInt { get }
}

extension ParkedQueue: KeptDescriptor {}

/// A parked queue, of which the service manager has a copy as long as we have it.
private final class StoredQueue: Sendable {
    private let queue: any KeptDescriptor
    private let name: String

    init(_ queue: any KeptDescriptor, as name: String) {
        self.queue = queue
        self.name = name
        // Without a service manager, or if it has no room, the link still outlives the worker.
        try? ServiceManager.store(queue.descriptor, as: name)
    }

    deinit { try? ServiceManager.unstore(name) }
}

extension DevicePath {
    /// The owner, as stored in the interface's `ifalias`: `xenback backend/vif/7/0`.
    var interfaceOwner: String { KernelNetwork.ownerPrefix + description }

    /// The device of an owner; nil for one of another kind of owner.
    init?(interfaceOwner: String) {
        guard interfaceOwner.hasPrefix(KernelNetwork.ownerPrefix) else { return nil }
        self.init(text: interfaceOwner.dropFirst(KernelNetwork.ownerPrefix.count))
    }
}
