// One netchannel2 card: its part of the life cycle that `DeviceShell` runs. Pinned to the control loop.

internal import BackendCore
internal import HostIO
internal import HostNetwork
internal import Hypervisor
internal import Logging
internal import NetChannel2
internal import SharedRing
internal import XenWire

/// The actor of one card of kind `vif2`. Its interface is made and kept as `vif`'s is (`InterfaceShell`).
///
/// A link cannot be taken over: the numbers of packets under way are known to nobody but the process that made them. A
/// successor has the frontend connect anew; the interface, and what depends on it, stays.
actor NetChannel2Backend: InterfaceShell {
    nonisolated let path: DevicePath
    nonisolated let environment: WorkerEnvironment
    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe environment.controlLoop.asUnownedSerialExecutor() }
    nonisolated let signal = WatchSignal()
    let capabilities: NetCapabilities
    let host: any NetworkHost
    let stall: StallTimes
    var life: DeviceLife

    /// What the toolstack specified; nil before `run`.
    var keys: NetDeviceKeys?
    private var trustsFrontend = false
    /// The frontend's address, as the toolstack wrote it, and whether no other source is let through.
    private var frontendMAC: String?
    private var filters = false

    // What is held.
    var interface: (any PacketDevice)?
    var placeWatch: PlaceWatch?
    var placeRepairs: UInt64 = 0
    private var connection: NetChannel2Connection?
    private var shared: NetChannel2Shared?
    private var queues: [NetChannel2Queue] = []
    var latch: BreakdownLatch?
    /// Counters of connections that are over.
    private var pastMetrics = NetMetrics()

    /// Pages for the packets of one queue: some 250 of usual size under way, or 15 of the largest.
    private static let pagesPerQueue = 256
    /// What we take on each queue, if its rings have room for the answers.
    private static let limits = NetChannel2Limits(
        maxPackets: 256,
        maxFragments: UInt32(NetChannel2Wire.maxFragments),
        offloads: [.checksum, .segmentationV4]
    )

    /// - Parameter stall: only tests have other times.
    init(
        _ path: DevicePath,
        _ environment: WorkerEnvironment,
        _ capabilities: NetCapabilities,
        _ host: any NetworkHost,
        stall: StallTimes = .usual
    ) {
        self.path = path
        self.environment = environment
        self.capabilities = capabilities
        self.host = host
        self.stall = stall
        life = DeviceLife(path, environment)
    }

    func begin() async -> (frontend: String, policy: HandshakePolicy) {
        let read = await readKeys(
            NetDeviceKeys.names + [
                NetChannel2Keys.remoteMAC, NetChannel2Keys.remoteTrusted, NetChannel2Keys.filterMAC,
            ]
        )
        let keys = NetDeviceKeys(read)
        self.keys = keys
        trustsFrontend = read[NetChannel2Keys.remoteTrusted] == "1"
        frontendMAC = read[NetChannel2Keys.remoteMAC]
        filters = read[NetChannel2Keys.filterMAC] == "1"
        let policy = HandshakePolicy(
            waitsForHotplug: keys.script != nil && !isPlacedNatively,
            removesDirectory: isDriverDomain,
            opensBeforeInitWait: true,
            ignoresInitialised: false
        )
        return (keys.frontend, policy)
    }

    private var isDriverDomain: Bool { environment.hypervisor.domains.own != .initial }

    /// No toolstack of today has a script for these.
    var isPlacedNatively: Bool {
        switch capabilities.placement {
        case .automatic: isDriverDomain || keys?.script == nil
        case .script: false
        case .native: true
        }
    }

    var watchedKeys: [String] { [path.key(NetKeys.rate)] }

    var features: [(String, String)] {
        [
            (NetChannel2Keys.maxRingOrder, "\(NetChannel2Wire.maxRingOrder)"),
            (BusKeys.multiQueueMaxQueues, "\(capabilities.maxQueues)"),
        ]
    }

    var breakdown: Breakdown? { latch?.raised }

    // MARK: connecting

    func connect(isTakeover: Bool) async throws(BackendFailure) -> String {
        guard let interface else { throw BackendFailure(.host, "no interface") }
        guard !isTakeover else {
            throw BackendFailure(
                .host,
                "a netchannel2 link cannot be taken over; the frontend has to connect anew",
                mayPass: false
            )
        }
        let onlySource = frontendMAC.flatMap { MACAddress(text: $0) }
        guard !filters || onlySource != nil else {
            let text = FrontendNodes.quoted(frontendMAC)
            throw BackendFailure(
                .invalid,
                "filter-mac=1 needs remote-mac, an address like 00:16:3e:12:34:56, not \(text)"
            )
        }
        let connection: NetChannel2Connection = try await negotiate(capabilities)
        try await watchPlace(interface, isTakeover: false)
        let latch = BreakdownLatch(signal)
        let shared = NetChannel2Shared(
            interface,
            queueCount: connection.queues.count,
            onlySource: filters ? onlySource : nil
        )
        self.latch = latch
        self.shared = shared
        await applyRate()
        let devices: [PacketQueue]
        do throws(HostFailure) {
            devices = try interface.openQueues(connection.queues.count)
            // Until the frontend says otherwise.
            try interface.setOffloads([])
            try interface.setCarrier(true)
        } catch {
            throw BackendFailure(error)
        }
        for index in connection.queues.indices {
            try await openQueue(index, connection, devices[index], shared, latch, interface.name)
        }
        self.connection = connection
        return connection.summary
    }

    private func openQueue(
        _ index: Int,
        _ connection: NetChannel2Connection,
        _ device: PacketQueue,
        _ shared: NetChannel2Shared,
        _ latch: BreakdownLatch,
        _ interface: String
    ) async throws(BackendFailure) {
        let wanted = connection.queues[index]
        let facts = NetChannel2QueueFacts(
            path: path,
            index: index,
            grants: environment.hypervisor.grants,
            data: try environment.dataLoop(device: path.index, queue: index),
            shared: shared,
            interface: interface,
            latch: latch,
            mark: CrashLane(mark, queue: index)
        )
        var limits = NetChannel2Backend.limits
        let most = NetChannel2Wire.maxPackets(producingRingBytes: wanted.backendRing.count * SharedPages.pageSize)
        limits.maxPackets = min(limits.maxPackets, most)
        let opening = NetChannel2Queue.Opening(
            wanted: wanted,
            control: try mapRing([wanted.control]),
            // We only read it.
            frontendPayload: try mapRing(wanted.frontendRing, access: .readOnly),
            backendPayload: try mapRing(wanted.backendRing),
            pages: try share(),
            limits: limits,
            trustsPeer: trustsFrontend,
            device: device,
            log: FaultLog(sharing: life.log),
            stall: stall
        )
        let queue = NetChannel2Queue(facts)
        queues.append(queue)
        try await queue.open(opening)
    }

    /// Pages of ours that the frontend may read.
    private func share() throws(BackendFailure) -> SharedGrant {
        do throws(HypervisorFailure) {
            return try environment.hypervisor.sharing.share(
                pageCount: NetChannel2Backend.pagesPerQueue,
                with: path.domain,
                access: .readOnly
            )
        } catch {
            throw BackendFailure(
                .host,
                "cannot grant pages to the frontend: \(error); all domains' vif2 queues need 256 each of the module "
                    + "xen-gntalloc's `limit`"
            )
        }
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
        for queue in queues {
            pastMetrics.merge(await queue.account().metrics)
            await queue.close(abandons: abandons)
        }
        queues = []
        connection = nil
        latch = nil
        shared = nil
    }

    // MARK: keys that may change

    func keysChanged() async {
        guard shared != nil else { return }
        await keepPlace()
        await applyRate()
    }

    /// Reads `rate` and applies it, as for `vif`.
    private func applyRate() async {
        let text = await readKeys([NetKeys.rate])[NetKeys.rate]
        guard let shared, shared.rateText != text else { return }
        let rate = text.flatMap { TransmitRate(text: $0) }
        shared.setRate(rate, text: text)
        if let text, !text.isEmpty, rate == nil {
            life.log.failure(
                "rate=\(FrontendNodes.quoted(text)) is not bytes,microseconds; the card goes on without a limit"
            )
        }
        life.say("rate \(rate == nil ? "unlimited" : text ?? "")")
        for queue in queues { await queue.rateChanged() }
    }

    // MARK: reports

    func report() async -> DeviceReport {
        var report = DeviceReport(path: path, phase: life.phase)
        report.backendState = life.snapshot?.backend
        report.frontendState = life.snapshot?.frontend
        report.lastFault = life.log.lastFault
        report.lastFailure = life.log.lastFailure
        var total = pastMetrics
        for queue in queues {
            let account = await queue.account()
            total.merge(account.metrics)
            report.lastFault = account.lastFault ?? report.lastFault
            report.lastFailure = account.lastFailure ?? report.lastFailure
        }
        report.counters = total.counters()
        report.counters.append(.init("tx-dropped", total.transmitDropped))
        report.counters.append(.init("rx-dropped", total.receiveDropped))
        if let interface { report.counters.append(.init("host-dropped", interface.droppedByHost)) }
        report.counters.append(.init("interface-repairs", placeRepairs))
        var card = CardReport(mtu: keys?.mtu.flatMap { UInt32(decimal: $0) } ?? 1500)
        card.mac = frontendMAC
        card.interface = keys?.interface
        card.bridge = keys?.bridge
        card.rate = shared?.rateText
        card.queueCount = connection?.queues.count
        card.connection = connection?.summary
        card.transmitted = CardReport.Traffic(
            packets: total.transmitPackets,
            bytes: total.transmitBytes,
            dropped: total.transmitDropped
        )
        card.received = CardReport.Traffic(
            packets: total.receivePackets,
            bytes: total.receiveBytes,
            dropped: total.receiveDropped
        )
        report.body = .card(card)
        return report
    }
}
