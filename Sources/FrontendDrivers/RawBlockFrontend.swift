// A hostile block frontend.

public import Hypervisor
internal import SharedRing
public import XenWire

/// The disk's `RawFrontend`. Its rings are `RawRing`s with the stride of the ABI's requests.
public final class RawBlockFrontend: RawFrontend {
    public let hypervisor: any Hypervisor
    public let bus: FrontendBus
    public let abi: BlockABI

    public init(_ hypervisor: any Hypervisor, index: UInt32, abi: BlockABI = .native) {
        self.hypervisor = hypervisor
        self.abi = abi
        bus = FrontendBus(store: hypervisor.store, path: "device/vbd/\(index)")
    }

    /// Grants pages for a ring and allocates a port.
    public func makeRing(pageCount: Int = 1) async throws(FrontendFailure) -> RawRing {
        try await makeRing(stride: abi.requestSize, pageCount: pageCount)
    }

    /// The keys that a well-behaved frontend with these rings writes.
    public static func keys(of rings: [RawRing], _ abi: BlockABI) -> [(String, String?)] {
        var keys: [(String, String?)] = [(BlockKeys.protocol, abi.rawValue)]
        if rings.count > 1 { keys.append((BusKeys.multiQueueNumQueues, "\(rings.count)")) }
        if let pages = rings.first?.grant.references.count, pages > 1 {
            keys.append((BlockKeys.ringPageOrder, "\(pages.trailingZeroBitCount)"))
        }
        for (index, ring) in rings.enumerated() {
            let folder = rings.count > 1 ? "\(BusKeys.queue(index))/" : ""
            let references = ring.grant.references
            for (page, reference) in references.enumerated() {
                let key = references.count == 1 ? BlockKeys.ringReference : BlockKeys.ringReference(page)
                keys.append((folder + key, "\(reference.rawValue)"))
            }
            keys.append((folder + BusKeys.eventChannel, "\(ring.port.rawValue)"))
        }
        return keys
    }

    /// Connects as a well-behaved frontend would: waits for 2, writes keys and 3, waits for 4, writes 4.
    /// - Parameter keys: written behind the usual ones, so they replace them; nil removes one.
    public func connect(_ rings: [RawRing], adding keys: [(String, String?)] = []) async throws(FrontendFailure) {
        try await connect(publishing: RawBlockFrontend.keys(of: rings, abi) + keys, announcing: .initialised)
        try await bus.publish(.connected)
    }
}
