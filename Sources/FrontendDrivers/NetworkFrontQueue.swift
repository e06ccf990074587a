// One queue of a network frontend: its two rings, their pages and ports.

internal import Hypervisor
internal import SharedRing
internal import XenWire

/// One queue. Belongs to its `NetworkFrontend`, whose loop is the only one to touch it.
final class NetworkFrontQueue {
    let index: Int
    let transmitPort: EventChannelPort
    /// The same as `transmitPort` where one channel serves both directions.
    let receivePort: EventChannelPort
    let transmitGrant: SharedGrant
    let receiveGrant: SharedGrant
    var statistics = NetworkFrontendStatistics()
    let options: NetworkFrontendOptions
    let events: any EventChannels
    var isClosed = false

    // Transmit.
    var transmitRing: FrontRing
    let transmitPages: SharedGrant
    /// Ids whose pages are not with the backend.
    var freeIDs: [UInt16]
    /// By id: the id of its packet's first slot, while the backend has it.
    var heads: [UInt16?]
    /// By id of a first slot.
    var packets: [PacketInFlight]
    var waiting: [CheckedContinuation<Void, Never>] = []
    let staging: PrivatePages

    // Receive.
    var receiveRing: FrontRing
    let receivePages: SharedGrant
    let assembly: PrivatePages
    var postsBuffers: Bool
    let scratch: PrivatePages

    /// The state of a packet that the backend has not answered completely.
    struct PacketInFlight {
        var slotsLeft = 0
        /// The worst so far.
        var status: Int16 = 0
        var answer: CheckedContinuation<Outcome, Never>?
    }

    /// The result of a packet that somebody waits for.
    enum Outcome: Sendable {
        /// The worst status of its slots.
        case answered(Int16)
        case closed
        /// It never went into the ring.
        case noRoom
    }

    /// Slots of the largest packet that we take apart or put together.
    static let maxSlots = 20

    /// - Parameter options: buffers within their limits, which `NetworkFrontend` has checked.
    init(
        _ index: Int,
        hypervisor: any Hypervisor,
        events: any EventChannels,
        backend: DomainID,
        split: Bool,
        options: NetworkFrontendOptions
    ) throws(FrontendFailure) {
        self.index = index
        self.options = options
        self.events = events
        postsBuffers = options.postsBuffers
        let sharing = hypervisor.sharing
        let (rings, pages, ports) = try FrontendDrivers.hypervisor { () throws(HypervisorFailure) in
            let rings = (
                try sharing.share(pageCount: 1, with: backend, access: .readWrite),
                try sharing.share(pageCount: 1, with: backend, access: .readWrite)
            )
            let pages = (
                try sharing.share(pageCount: options.transmitBuffers, with: backend, access: .readOnly),
                try sharing.share(pageCount: options.receiveBuffers, with: backend, access: .readWrite)
            )
            let transmit = try events.allocate(for: backend)
            return (rings, pages, (transmit, split ? try events.allocate(for: backend) : transmit))
        }
        (transmitGrant, receiveGrant) = rings
        (transmitPages, receivePages) = pages
        (transmitPort, receivePort) = ports
        transmitRing = FrontRing(pages: rings.0.pages, stride: NetWire.transmitStride)
        receiveRing = FrontRing(pages: rings.1.pages, stride: NetWire.receiveStride)
        freeIDs = (0..<UInt16(options.transmitBuffers)).reversed()
        heads = Array(repeating: nil, count: options.transmitBuffers)
        packets = Array(repeating: PacketInFlight(), count: options.transmitBuffers)
        do {
            staging = try PrivatePages(byteCount: NetWire.maxPacket)
            assembly = try PrivatePages(byteCount: NetworkFrontQueue.maxSlots * SharedPages.pageSize)
            scratch = try PrivatePages(byteCount: SharedPages.pageSize)
        } catch {
            throw .hypervisor(HypervisorFailure("allocate a queue's memory", error))
        }
    }

    func notify(_ port: EventChannelPort) {
        statistics.notifications += 1
        events.notify(port)
    }

    /// Checks both rings, as after an event for both.
    func kick() {
        notify(transmitPort)
        if receivePort != transmitPort { notify(receivePort) }
    }

    /// Closes: every waiting caller gets an error.
    func close() {
        isClosed = true
        for id in packets.indices {
            packets[id].answer?.resume(returning: .closed)
            packets[id].answer = nil
        }
        let waiters = waiting
        waiting = []
        for waiter in waiters { waiter.resume() }
        events.unbind(transmitPort)
        if receivePort != transmitPort { events.unbind(receivePort) }
    }
}

/// Runs a ring's look with its fault as ours.
func look(
    _ ring: inout FrontRing,
    _ body: (inout FrontRing) throws(ResponseProducerFault) -> UInt32
) throws(FrontendFailure) -> UInt32 {
    do throws(ResponseProducerFault) { return try body(&ring) } catch { throw .ring(error) }
}
