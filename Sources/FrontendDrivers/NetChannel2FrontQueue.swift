// One queue of a netchannel2 frontend: its rings, its link, and what it grants and copies.

internal import Hypervisor
internal import NetChannel2
internal import SharedRing
internal import XenWire

/// One queue. Belongs to its `NetChannel2Frontend`, whose loop is the only one to touch it.
final class NetChannel2FrontQueue {
    let port: EventChannelPort
    let keys: [(String, String)]
    private let events: any EventChannels
    private let grants: any GrantTable
    private let backend: DomainID
    private var link: NetChannel2Link
    private var intake: NetChannel2Intake
    private var copies = GrantCopyBatch(capacity: 512)
    private let staging: PrivatePages
    /// Callers that wait until a packet can be sent.
    private var waiting: [CheckedContinuation<Void, Never>] = []
    private(set) var isClosed = false
    private(set) var statistics = NetChannel2Statistics()

    /// Makes rings, pages and port, all granted to the backend.
    init(
        _ hypervisor: any Hypervisor,
        _ events: any EventChannels,
        backend: DomainID,
        _ options: NetChannel2FrontendOptions
    ) throws(FrontendFailure) {
        let sharing = hypervisor.sharing
        let pageCount = 1 << Int(options.ringOrder)
        let (control, out, back, pages, port) = try FrontendDrivers.hypervisor { () throws(HypervisorFailure) in
            (
                try sharing.share(pageCount: 1, with: backend, access: .readWrite),
                // The backend only reads what we produce.
                try sharing.share(pageCount: pageCount, with: backend, access: .readOnly),
                try sharing.share(pageCount: pageCount, with: backend, access: .readWrite),
                try sharing.share(pageCount: options.pageCount, with: backend, access: .readOnly),
                try events.allocate(for: backend)
            )
        }
        self.events = events
        self.backend = backend
        self.port = port
        grants = hypervisor.grants
        keys = NetChannel2FrontQueue.keys(control, out, back, port, order: options.ringOrder)
        do {
            intake = try NetChannel2Intake()
            staging = try PrivatePages(byteCount: NetChannel2Wire.maxPacket)
            link = NetChannel2Link(
                MessageRing(
                    control: control.pages,
                    frontendPayload: out.pages,
                    backendPayload: back.pages,
                    end: .frontend
                ),
                NetChannel2Session(capacity: options.pageCount, trustsPeer: true),
                GrantedPages(pages.pages, references: pages.references, slots: options.pageCount),
                memory: try PrivatePages(byteCount: SharedPages.pageSize)
            )
        } catch {
            throw .hypervisor(HypervisorFailure("allocate a queue's memory", error))
        }
    }

    private static func keys(
        _ control: SharedGrant,
        _ out: SharedGrant,
        _ back: SharedGrant,
        _ port: EventChannelPort,
        order: UInt32
    ) -> [(String, String)] {
        var keys = [
            (NetChannel2Keys.control, "\(control.references[0].rawValue)"),
            (NetChannel2Keys.producerOrder, "\(order)"), (NetChannel2Keys.consumerOrder, "\(order)"),
            (BusKeys.eventChannel, "\(port.rawValue)"),
        ]
        for (page, reference) in out.references.enumerated() {
            keys.append((NetChannel2Keys.producerPage(page), "\(reference.rawValue)"))
        }
        for (page, reference) in back.references.enumerated() {
            keys.append((NetChannel2Keys.consumerPage(page), "\(reference.rawValue)"))
        }
        return keys
    }

    /// Says what we take, and begins to listen.
    func open(_ limits: NetChannel2Limits) throws(FrontendFailure) {
        do throws(NetChannel2LinkFault) { try link.open(limits) } catch { throw .link(error) }
        _ = link.flush()
        // The backend may not have asked for events yet.
        events.notify(port)
        try turn { _ in }
    }

    /// Everything there is to do after an event.
    func turn(_ receive: (NetChannel2Frame) -> Void) throws(FrontendFailure) {
        var isOver = false
        while !isOver {
            intake.clear()
            do throws(NetChannel2LinkFault) {
                var step = NetChannel2Step.other
                while step == .other || step == .packet { step = try link.takeNext(&intake, copies: &copies) }
                copy()
                link.finish(intake)
                deliver(receive)
                flush()
                if step != .full { isOver = try link.sleep() }
            } catch {
                copies.clear()
                throw .link(error)
            }
        }
        let waiters = waiting
        waiting = []
        for waiter in waiters { waiter.resume() }
    }

    private func flush() {
        guard link.flush() else { return }
        statistics.notifications += 1
        events.notify(port)
    }

    private func copy() {
        guard copies.count > 0 else { return }
        let isTried: Bool
        do throws(HypervisorFailure) {
            try grants.copy(&copies, with: backend)
            isTried = true
        } catch {
            isTried = false
        }
        var index = 0
        for copy in 0..<copies.count where !isTried || copies.status(of: copy) != .okay {
            if intake.failed(copy, from: &index) { statistics.failedPackets += 1 }
        }
        copies.clear()
    }

    private func deliver(_ receive: (NetChannel2Frame) -> Void) {
        for taken in intake.packets where taken.isWhole {
            let packet = taken.packet
            statistics.receivedPackets += 1
            if packet.type == .small { statistics.receivedSmall += 1 }
            receive(
                NetChannel2Frame(
                    bytes: intake.memory.slot(at: taken.offset, byteCount: packet.byteCount).bytes,
                    flags: packet.flags,
                    segmentSize: packet.segmentSize,
                    checksumStart: packet.checksumStart,
                    checksumOffset: packet.checksumOffset
                )
            )
        }
    }

    /// Sends a packet if that is possible now.
    func send(_ frame: NetChannel2Frame, now: UInt64) throws(FrontendFailure) -> NetChannel2Sent {
        guard !isClosed else { throw .closed }
        guard frame.bytes.count <= NetChannel2Wire.maxPacket else { return .unfit }
        staging.write(frame.bytes, at: 0)
        var packet = NetChannel2Outgoing(offset: 0, byteCount: frame.bytes.count)
        packet.flags = frame.flags
        packet.segmentSize = frame.segmentSize
        packet.checksumStart = frame.checksumStart
        packet.checksumOffset = frame.checksumOffset
        do throws(NetChannel2LinkFault) {
            let sent = try link.send(packet, staging, now: now)
            if sent == .sent {
                statistics.sentPackets += 1
                flush()
            }
            return sent
        } catch {
            throw .link(error)
        }
    }

    /// Waits until something may have changed.
    /// - Parameter continuation: resumed at once if the link must not sleep.
    func wait(_ continuation: CheckedContinuation<Void, Never>) {
        let maySleep = (try? link.sleep()) ?? false
        if isClosed || !maySleep { continuation.resume() } else { waiting.append(continuation) }
    }

    /// Takes other offloads from now on.
    func change(_ offloads: NetChannel2Offloads) throws(FrontendFailure) -> Bool {
        do throws(NetChannel2LinkFault) {
            let isSaid = try link.change(offloads)
            flush()
            return isSaid
        } catch {
            throw .link(error)
        }
    }

    /// What the backend takes.
    var peer: NetChannel2Limits { link.peer }
    /// Packets that the backend has not finished.
    var outstanding: Int { link.outstanding }

    func close() {
        isClosed = true
        events.unbind(port)
        let waiters = waiting
        waiting = []
        for waiter in waiters { waiter.resume() }
    }
}
