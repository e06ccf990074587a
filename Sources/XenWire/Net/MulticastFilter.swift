// Which multicast packets a frontend wants (netif.h, "feature-multicast-control").

/// The list of one frontend. Looked through for multicast packets only; at most 64 addresses, as in xen-netback.
public struct MulticastFilter: Hashable, Sendable {
    /// `XEN_NETBK_MCAST_MAX`
    public static let capacity = 64

    /// In the order in which they were added.
    public private(set) var addresses: [MACAddress] = []

    public init() { addresses.reserveCapacity(MulticastFilter.capacity) }

    @inlinable public var count: Int { addresses.count }

    /// - Returns: false if the list is full.
    public mutating func add(_ address: MACAddress) -> Bool {
        if addresses.contains(address) { return true }
        guard addresses.count < MulticastFilter.capacity else { return false }
        addresses.append(address)
        return true
    }

    /// Removing what is not there is no error.
    public mutating func remove(_ address: MACAddress) { addresses.removeAll { $0 == address } }

    /// Forgets all, as a frontend does that connects anew.
    public mutating func removeAll() { addresses.removeAll(keepingCapacity: true) }

    /// Carries a request out.
    /// - Returns: what to answer it with.
    public mutating func perform(_ request: MulticastRequest) -> TransmitStatus {
        switch request {
        case .add(let address): return add(address) ? .okay : .error
        case .delete(let address):
            remove(address)
            return .okay
        }
    }

    /// Whether the frontend wants packets to `destination`: all but multicast ones that it did not add.
    @inlinable
    public func passes(_ destination: MACAddress) -> Bool {
        !destination.isGroup || destination.isBroadcast || addresses.contains(destination)
    }
}
