// Attaching to a frontend's rings, and releasing them.

internal import BackendCore
internal import HostIO
internal import HostNetwork
internal import Hypervisor
internal import Logging
internal import SharedRing
internal import XenWire

extension NetBackend {
    var features: [(String, String)] {
        [
            (NetKeys.featureScatterGather, "1"),
            (NetKeys.featureSegmentationV4, "1"),
            (NetKeys.featureSegmentationV6, "1"),
            (NetKeys.featureChecksumOffloadV6, "1"),
            (NetKeys.featureReceiveCopy, "1"),
            (NetKeys.featureReceiveFlip, "0"),
            (NetKeys.featureMulticastControl, "1"),
            (NetKeys.featureDynamicMulticastControl, "1"),
            (NetKeys.featureSplitEventChannels, "1"),
            (NetKeys.featureControlRing, "1"),
            (BusKeys.multiQueueMaxQueues, "\(capabilities.maxQueues)"),
        ]
    }

    func connect(isTakeover: Bool) async throws(BackendFailure) -> String {
        guard let interface else { throw BackendFailure(.host, "no interface") }
        let connection: NetConnection = try await negotiate(capabilities)
        let rings = try map(connection)
        let (journal, isTakeover) = try openJournal(
            identity: connection.identity(domain: try await domainIdentity()),
            layout: .rings(
                2 * connection.queues.count + 1,
                slots: NetWire.transmitSlots,
                stateBytes: NetSettings.byteCount
            ),
            rings: rings.all,
            isTakeover: isTakeover
        )
        try await watchPlace(interface, isTakeover: isTakeover)
        let latch = BreakdownLatch(signal)
        let shared = NetSharedState(connection, interface, journal)
        self.latch = latch
        self.shared = shared
        await applyRate()
        let devices: [PacketQueue]
        do throws(HostFailure) {
            devices = try interface.openQueues(connection.queues.count)
            try interface.setOffloads(connection.offloads)
            try interface.setCarrier(true)
        } catch {
            throw BackendFailure(error)
        }
        ports = await openPorts(devices, interface.vhost)
        try await openQueues(connection, rings, journal, devices, shared, latch, isTakeover: isTakeover)
        self.connection = connection
        return connection.summary
    }

    /// A thread of the kernel for each queue, or for none: then packets go by system calls.
    private func openPorts(_ devices: [PacketQueue], _ source: any VhostSource) async -> [VhostPort] {
        do throws(HostFailure) {
            if !capabilities.usesVhost { throw HostFailure(.denied, "[net] vhost = false") }
            let ports = try await environment.controlLoop.blocking { () throws(HostFailure) in
                var ports: [VhostPort] = []
                for device in devices { try ports.append(VhostPort(device, source)) }
                return ports
            }
            plainReason = nil
            return ports
        } catch {
            // Once, not at each connection.
            if plainReason != error.text { life.say("packets go by system calls: \(error)", level: .notice) }
            plainReason = error.text
            return []
        }
    }

    /// A card's rings, mapped.
    private struct MappedRings {
        var transmit: [SharedPages] = []
        var receive: [SharedPages] = []
        var control: SharedPages?
        var all: [SharedPages] { transmit + receive + (control.map { [$0] } ?? []) }
    }

    private func map(_ connection: NetConnection) throws(BackendFailure) -> MappedRings {
        var rings = MappedRings()
        for queue in connection.queues {
            rings.transmit.append(try mapRing([queue.transmitRing]))
            rings.receive.append(try mapRing([queue.receiveRing]))
        }
        if let control = connection.control { rings.control = try mapRing([control.ring]) }
        return rings
    }

    private func openQueues(
        _ connection: NetConnection,
        _ rings: MappedRings,
        _ journal: RequestJournal,
        _ devices: [PacketQueue],
        _ shared: NetSharedState,
        _ latch: BreakdownLatch,
        isTakeover: Bool
    ) async throws(BackendFailure) {
        let mark = mark
        for index in connection.queues.indices {
            let facts = NetQueueFacts(
                path: path,
                index: index,
                grants: environment.hypervisor.grants,
                data: try environment.dataLoop(device: path.index, queue: index),
                shared: shared,
                offloads: connection.offloads,
                interface: interface?.name ?? "",
                latch: latch,
                mark: CrashLane(mark, queue: index)
            )
            let queue = NetQueue(facts)
            queues.append(queue)
            let opening = NetQueue.Opening(
                connection: connection,
                transmitRing: rings.transmit[index],
                receiveRing: rings.receive[index],
                journal: journal,
                device: devices[index],
                vhost: ports.isEmpty ? nil : ports[index],
                log: FaultLog(sharing: life.log),
                stall: stall,
                isTakeover: isTakeover
            )
            try await queue.open(opening)
        }
        guard let wanted = connection.control, let ring = rings.control, let first = queues.first else { return }
        let control = NetControlQueue(first.facts)
        self.control = control
        try await control.open(
            pages: ring,
            port: wanted.port,
            journal: journal.ring(2 * connection.queues.count),
            isTakeover: isTakeover
        )
    }

    func disconnect() async {
        await close(abandons: false)
        guard !life.isDraining, let interface else { return }
        do throws(HostFailure) {
            try interface.setCarrier(false)
        } catch {
            // It is gone already or about to go; nothing depends on it.
            life.logger.debug("\(error)")
        }
    }

    func release() async { await close(abandons: true) }

    private func close(abandons: Bool) async {
        if let control { await control.close(abandons: abandons) }
        control = nil
        for queue in queues {
            pastMetrics.merge(await queue.account().metrics)
            await queue.close(abandons: abandons)
        }
        queues = []
        ports = []
        connection = nil
        latch = nil
        shared = nil
    }

    // MARK: keys that may change

    func keysChanged() async {
        guard shared != nil else { return }
        await keepPlace()
        await applyRate()
        let key = "\(life.frontend)/\(NetKeys.requestMulticastControl)"
        let text = await persist("read \(key)") { (store) throws(HypervisorFailure) in try store.read(key) }
        shared?.setFiltering(FrontendNodes([key: text].compactMapValues { $0 }).flag(key))
    }

    /// Reads `rate` and applies it: all queues of the card share it. A malformed one means no limit, as in xen-netback
    /// (`xen_net_read_rate`).
    private func applyRate() async {
        let text = await readKeys([NetKeys.rate])[NetKeys.rate]
        guard let shared, shared.rateText != text else { return }
        let isGiven = !(text?.isEmpty ?? true)
        let rate = text.flatMap { TransmitRate(text: $0) }
        shared.setRate(rate, text: text)
        if let text, isGiven, rate == nil {
            life.log.failure(
                "rate=\(FrontendNodes.quoted(text)) is not bytes,microseconds; the card goes on without a limit"
            )
        } else if isGiven {
            life.say("rate \(text ?? "")")
        } else {
            life.say("rate unlimited")
        }
        for queue in queues { await queue.rateChanged() }
    }
}
