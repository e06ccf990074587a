// A raw ring page: any bytes in any slot, any index, any event.

public import Hypervisor
public import SharedRing
internal import Synchronization
public import XenWire

/// One ring and its port, raw: no flow control, no state, no thread. The caller can corrupt every word of it.
public final class RawRing: Sendable {
    public let grant: SharedGrant
    public let port: EventChannelPort
    public let events: any EventChannels
    /// Bytes from one slot to the next.
    public let stride: Int
    private let scratch: Mutex<PrivatePages>

    /// - Parameters:
    ///   - events: nil: opens them.
    ///   - port: nil: allocates one.
    public init(
        _ hypervisor: any Hypervisor,
        backend: DomainID,
        stride: Int,
        pageCount: Int = 1,
        events: (any EventChannels)? = nil,
        port: EventChannelPort? = nil
    ) throws(FrontendFailure) {
        self.stride = stride
        (self.events, grant, self.port) = try FrontendDrivers.hypervisor { () throws(HypervisorFailure) in
            let events = if let events { events } else { try hypervisor.openEventChannels() }
            let grant = try hypervisor.sharing.share(pageCount: pageCount, with: backend, access: .readWrite)
            if let port { return (events, grant, port) }
            return (events, grant, try events.allocate(for: backend))
        }
        // As ring.h's SHARED_RING_INIT.
        grant.pages.storeRelease(1, at: RingLayout.requestEvent)
        grant.pages.storeRelease(1, at: RingLayout.responseEvent)
        do { scratch = Mutex(try PrivatePages(byteCount: SharedPages.pageSize)) } catch {
            throw .hypervisor(HypervisorFailure("allocate a slot", error))
        }
    }

    /// Slots of the ring.
    public var size: Int { BackRing.slots(pageCount: grant.pages.pageCount, stride: stride) }

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

    /// `req_event`: the request that the backend wants to be told of.
    public var requestEvent: UInt32 { grant.pages.loadAcquire(at: RingLayout.requestEvent) }

    private func offset(_ index: UInt32) -> Int { RingLayout.slots + Int(index & UInt32(size - 1)) * stride }

    /// Overwrites the slot of ring index `index` with these bytes, at most the stride; the rest of it stays.
    public func put(_ bytes: [UInt8], at index: UInt32) {
        scratch.withLock { scratch in
            let count = min(bytes.count, stride)
            scratch.write(Array(bytes.prefix(count)), at: 0)
            grant.pages.copyIn(at: offset(index), count: count, from: scratch, at: 0)
        }
    }

    /// Overwrites the slot of ring index `index` with the first bytes of `words`.
    public func put(_ words: WireWords, at index: UInt32) {
        scratch.withLock { scratch in
            let slot = scratch.slot(at: 0, byteCount: 16)
            slot.set64(words.low, at: 0)
            slot.set64(words.high, at: 8)
            grant.pages.copyIn(at: offset(index), count: min(16, stride), from: scratch, at: 0)
        }
    }

    /// The first `count` bytes (all of them: nil) of the slot of ring index `index`, as they are now.
    public func bytes(at index: UInt32, count: Int? = nil) -> [UInt8] {
        let count = count ?? stride
        return scratch.withLock { scratch in
            grant.pages.copyOut(at: offset(index), count: count, to: scratch, at: 0)
            let slot = scratch.slot(at: 0, byteCount: count)
            return (0..<count).map { slot.u8($0) }
        }
    }

    /// Reads the slot of ring index `index`.
    public func read<Value: Sendable>(at index: UInt32, _ decode: @Sendable (Slot) -> Value) -> Value {
        scratch.withLock { scratch in
            grant.pages.copyOut(at: offset(index), count: stride, to: scratch, at: 0)
            return decode(scratch.slot(at: 0, byteCount: stride))
        }
    }

    /// Sends an event.
    public func notify() { events.notify(port) }

    /// Puts requests behind the last, makes them visible together and notifies.
    /// - Returns: the ring index of the first.
    @discardableResult
    public func send(_ requests: [WireWords]) -> UInt32 {
        let first = requestProducer
        for (place, words) in requests.enumerated() { put(words, at: first &+ UInt32(place)) }
        requestProducer = first &+ UInt32(requests.count)
        notify()
        return first
    }

    /// Makes the requests below `producer` visible and notifies if the backend asked for that, as frontends with manners
    /// do (ring.h, `RING_PUSH_REQUESTS_AND_CHECK_NOTIFY`).
    public func push(to producer: UInt32) {
        let old = requestProducer
        requestProducer = producer
        SharedPages.fence()
        if producer &- requestEvent < producer &- old { notify() }
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
}
