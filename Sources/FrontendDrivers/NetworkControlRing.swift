// The control ring of a network frontend: one request, one answer, in any order.

internal import Hypervisor
internal import SharedRing
internal import XenWire

/// The ring and a page for a request's data. Belongs to its `NetworkFrontend`.
final class NetworkControlRing {
    let port: EventChannelPort
    let grant: SharedGrant
    /// Keys and mappings for the backend to read.
    let page: SharedGrant
    private var ring: FrontRing
    private let events: any EventChannels
    private let scratch: PrivatePages
    private var nextID: UInt16 = 0
    private var isClosed = false
    private var pending: [UInt16: CheckedContinuation<ControlResponse?, Never>] = [:]

    init(
        hypervisor: any Hypervisor,
        events: any EventChannels,
        backend: DomainID
    ) throws(FrontendFailure) {
        self.events = events
        let sharing = hypervisor.sharing
        (grant, page, port) = try FrontendDrivers.hypervisor { () throws(HypervisorFailure) in
            (
                try sharing.share(pageCount: 1, with: backend, access: .readWrite),
                try sharing.share(pageCount: 1, with: backend, access: .readOnly),
                try events.allocate(for: backend)
            )
        }
        ring = FrontRing(pages: grant.pages, stride: NetWire.controlStride)
        do { scratch = try PrivatePages(byteCount: SharedPages.pageSize) } catch {
            throw .hypervisor(HypervisorFailure("allocate a control slot", error))
        }
    }

    /// Sends a request under an id of our own.
    /// - Parameters:
    ///   - data: three numbers.
    ///   - bytes: at most a page, put into a granted page, whose reference then replaces the first number. A request
    ///     with bytes must be answered before the next one with bytes.
    /// - Returns: nil if the ring is full or closes.
    func perform(_ type: ControlType, _ data: [UInt32], _ bytes: [UInt8]?) async -> ControlResponse? {
        await withCheckedContinuation { continuation in
            guard ring.free > 0, !isClosed else { return continuation.resume(returning: nil) }
            var first = data[0]
            if let bytes {
                scratch.write(bytes, at: 0)
                page.pages.copyIn(at: 0, count: bytes.count, from: scratch, at: 0)
                first = page.references[0].rawValue
            }
            nextID &+= 1
            let request = ControlRequest(id: nextID, type: type, first, data[1], data[2])
            pending[request.id] = continuation
            ring.put(request.words, count: NetWire.controlStride)
            if ring.push() { events.notify(port) }
        }
    }

    /// Takes all answers and arms the ring.
    func takeAnswers() throws(FrontendFailure) {
        var count = try look(&ring) { (ring) throws(ResponseProducerFault) in try ring.poll() }
        while count > 0 {
            while ring.waiting > 0 {
                let slot = scratch.slot(at: 0, byteCount: NetWire.controlStride)
                ring.takeNext(into: slot, count: NetWire.controlResponseSize)
                let response = ControlResponse(decoding: slot)
                guard let waiter = pending.removeValue(forKey: response.id) else {
                    throw .badResponse(id: UInt64(response.id))
                }
                waiter.resume(returning: response)
            }
            count = try look(&ring) { (ring) throws(ResponseProducerFault) in try ring.lastLook() }
        }
    }

    func close() {
        isClosed = true
        let waiters = pending.values
        pending = [:]
        for waiter in waiters { waiter.resume(returning: nil) }
        events.unbind(port)
    }
}
