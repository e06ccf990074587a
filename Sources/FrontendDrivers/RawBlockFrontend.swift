// A block frontend without manners: every word of the ring, every key and every grant is the caller's to spoil.

public import Hypervisor
public import SharedRing
internal import Synchronization
public import XenWire

/// The frontend of hostile tests and fuzzers. It does nothing by itself: no state machine, no flow control, no thread.
public final class RawBlockFrontend: Sendable {
    public let hypervisor: any Hypervisor
    public let bus: FrontendBus

    public init(_ hypervisor: any Hypervisor, index: UInt32) {
        self.hypervisor = hypervisor
        bus = FrontendBus(store: hypervisor.store, path: "device/vbd/\(index)")
    }

    /// Grants pages for a ring and allocates a port.
    public func makeRing(
        pageCount: Int = 1,
        abi: BlockABI = .native
    ) async throws(FrontendFailure) -> RawBlockRing {
        let backend = try await bus.backend().domain
        return try RawBlockRing(hypervisor, backend: backend, pageCount: pageCount, abi: abi)
    }

    /// The keys a well-behaved frontend with this one ring writes.
    public func keys(of ring: RawBlockRing) -> [(String, String?)] {
        let references = ring.grant.references
        var keys: [(String, String?)] = [
            (BlockKeys.protocol, ring.abi.rawValue), (BusKeys.eventChannel, "\(ring.port.rawValue)"),
        ]
        if references.count == 1 {
            keys.append((BlockKeys.ringReference, "\(references[0].rawValue)"))
        } else {
            keys.append((BlockKeys.ringPageOrder, "\(references.count.trailingZeroBitCount)"))
            for (page, reference) in references.enumerated() {
                keys.append((BlockKeys.ringReference(page), "\(reference.rawValue)"))
            }
        }
        return keys
    }

    /// Connects as a well-behaved frontend would: waits for 2, writes keys and 3, waits for 4, writes 4.
    public func connect(_ ring: RawBlockRing, adding keys: [(String, String?)] = []) async throws(FrontendFailure) {
        let backend = try await bus.backend().path
        _ = try await bus.wait(for: [.initWait], of: backend)
        try await bus.publish(self.keys(of: ring) + keys)
        try await bus.publish(.initialised)
        _ = try await bus.wait(for: [.connected], of: backend)
        try await bus.publish(.connected)
    }
}

/// One ring's pages and port, raw.
public final class RawBlockRing: Sendable {
    public let grant: SharedGrant
    public let port: EventChannelPort
    public let abi: BlockABI
    public let events: any EventChannels
    private let sharing: any GrantSharing
    private let backend: DomainID
    private let scratch: Mutex<PrivatePages>

    init(
        _ hypervisor: any Hypervisor,
        backend: DomainID,
        pageCount: Int,
        abi: BlockABI
    ) throws(FrontendFailure) {
        self.abi = abi
        self.backend = backend
        let sharing = hypervisor.sharing
        self.sharing = sharing
        let made = try FrontendDrivers.hypervisor { () throws(HypervisorFailure) in
            let events = try hypervisor.openEventChannels()
            let grant = try sharing.share(pageCount: pageCount, with: backend, access: .readWrite)
            return (events, grant, try events.allocate(for: backend))
        }
        (events, grant, port) = made
        // As ring.h's SHARED_RING_INIT.
        made.1.pages.storeRelease(1, at: RingLayout.requestEvent)
        made.1.pages.storeRelease(1, at: RingLayout.responseEvent)
        do { scratch = Mutex(try PrivatePages(byteCount: SharedPages.pageSize)) } catch {
            throw .hypervisor(HypervisorFailure("allocate a slot", error))
        }
    }

    /// Slots of the ring.
    public var size: Int { BackRing.slots(pageCount: grant.pages.pageCount, stride: abi.requestSize) }

    /// `req_prod`. Setting it makes requests visible, whatever it is set to.
    public var requestProducer: UInt32 {
        get { grant.pages.loadAcquire(at: RingLayout.requestProducer) }
        set { grant.pages.storeRelease(newValue, at: RingLayout.requestProducer) }
    }

    /// `rsp_prod`. Only the backend should write it.
    public var responseProducer: UInt32 {
        get { grant.pages.loadAcquire(at: RingLayout.responseProducer) }
        set { grant.pages.storeRelease(newValue, at: RingLayout.responseProducer) }
    }

    /// `rsp_event`: the response that shall be notified.
    public var responseEvent: UInt32 {
        get { grant.pages.loadAcquire(at: RingLayout.responseEvent) }
        set { grant.pages.storeRelease(newValue, at: RingLayout.responseEvent) }
    }

    private func offset(_ index: UInt32) -> Int {
        RingLayout.slots + Int(index & UInt32(size - 1)) * abi.requestSize
    }

    /// Fills the slot of ring index `index` with what `fill` encodes into it; the rest is zero.
    public func put(at index: UInt32, _ fill: (Slot, BlockABI) -> Void) {
        scratch.withLock { scratch in
            scratch.zero(at: 0, count: abi.requestSize)
            fill(scratch.slot(at: 0, byteCount: abi.requestSize), abi)
            grant.pages.copyIn(at: offset(index), count: abi.requestSize, from: scratch, at: 0)
        }
    }

    /// Overwrites the slot of ring index `index` with these bytes, at most a request's size.
    public func put(bytes: [UInt8], at index: UInt32) {
        scratch.withLock { scratch in
            let count = min(bytes.count, abi.requestSize)
            scratch.write(Array(bytes.prefix(count)), at: 0)
            grant.pages.copyIn(at: offset(index), count: count, from: scratch, at: 0)
        }
    }

    /// The slot of ring index `index`, read as a response; nil if its status is none.
    public func response(at index: UInt32) -> BlockResponse? {
        scratch.withLock { scratch in
            grant.pages.copyOut(at: offset(index), count: abi.responseSize, to: scratch, at: 0)
            return BlockResponse(decoding: scratch.slot(at: 0, byteCount: abi.responseSize))
        }
    }

    /// The bytes of the response slot of ring index `index`, padding included.
    public func responseBytes(at index: UInt32) -> [UInt8] {
        scratch.withLock { scratch in
            grant.pages.copyOut(at: offset(index), count: abi.responseSize, to: scratch, at: 0)
            return scratch.withBytes(at: 0, count: abi.responseSize) { bytes in
                (0..<bytes.byteCount).map { scratch.slot(at: $0, byteCount: 1).u8(0) }
            }
        }
    }

    /// Sends an event.
    public func notify() { events.notify(port) }

    /// Puts a request behind the last, makes it visible and notifies.
    /// - Returns: its ring index.
    @discardableResult
    public func send(_ fill: (Slot, BlockABI) -> Void) -> UInt32 {
        let index = requestProducer
        put(at: index, fill)
        requestProducer = index &+ 1
        notify()
        return index
    }

    /// Waits until `rsp_prod` has reached `producer`.
    /// - Returns: false if it has not within `limit`.
    public func waitForResponses(upTo producer: UInt32, within limit: Duration = .seconds(5)) async -> Bool {
        let end = ContinuousClock.now + limit
        while Int32(bitPattern: responseProducer &- producer) < 0 {
            if ContinuousClock.now >= end { return false }
            try? await Task.sleep(for: .milliseconds(1))
        }
        return true
    }

    /// Grants pages for data to this ring's backend. They end with the last reference to the result.
    public func makePages(_ count: Int, access: GrantAccess = .readWrite) throws(FrontendFailure) -> SharedGrant {
        try FrontendDrivers.hypervisor { () throws(HypervisorFailure) in
            try sharing.share(pageCount: count, with: backend, access: access)
        }
    }
}
