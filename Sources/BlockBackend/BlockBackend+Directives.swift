// What the handshake orders, done.

internal import BackendCore
internal import DiskImages
internal import HostIO
internal import Hypervisor
internal import Logging
internal import SharedRing
internal import SystemPackage
internal import XenWire

extension BlockBackend {
    /// How long 2 stays where no script holds it (`HandshakeDirective.holdInitWait`).
    private static let initWaitTime = Duration.milliseconds(300)

    func perform(_ directive: HandshakeDirective) async {
        switch directive {
        case .publishFeatures: await publishFeatures()
        case .publish(let state): await publish(state)
        case .holdInitWait: holdInitWait()
        case .openBacking: startOpening()
        case .closeBacking: medium = nil
        case .connect: await connect(isTakeover: false)
        case .reattach: await connect(isTakeover: true)
        case .disconnect: startDisconnecting()
        case .reportError(let text): await reportError(text)
        case .answerHotplug(let failure): await answerScripts(failure)
        case .removeBackendDirectory: await removeDirectory()
        case .finished: isFinished = true
        }
    }

    // MARK: publishing

    private func publishFeatures() async {
        var values: [(String, String)] = [
            (BlockKeys.featureMaxIndirectSegments, "\(BlockOffer.maxIndirectSegments)"),
            (BusKeys.multiQueueMaxQueues, "\(offer.maxQueues)"),
            (BlockKeys.maxRingPageOrder, "\(offer.maxRingPageOrder)"),
            (BlockKeys.featureFlushCache, "1"),
            (BlockKeys.featureBarrier, "1"),
        ]
        if offer.persistentGrants { values.append((BlockKeys.featurePersistent, "1")) }
        await write(values, "publish the features")
    }

    private func publish(_ state: XenbusState) async {
        say("state \(state)")
        var values = state == .connected ? properties : []
        values.append((BusKeys.state, state.text))
        await write(values, "publish state \(state)")
    }

    /// What a frontend reads when it sees 4.
    var properties: [(String, String)] {
        let limits = currentLimits
        let facts = medium?.image.facts
        var values: [(String, String)] = [
            (BlockKeys.sectors, "\(limits.capacity)"),
            (BlockKeys.sectorSize, "\(limits.logicalBlockSize)"),
            (BlockKeys.physicalSectorSize, "\(facts?.physicalBlockSize ?? limits.logicalBlockSize)"),
            (BlockKeys.info, "\(keys?.flags.rawValue ?? 0)"),
        ]
        if limits.features.contains(.discard), let facts {
            values += [
                (BlockKeys.featureDiscard, "1"),
                (BlockKeys.discardGranularity, "\(facts.discardGranularity)"),
                (BlockKeys.discardAlignment, "\(facts.discardAlignment)"),
                (BlockKeys.discardSecure, limits.features.contains(.secureDiscard) ? "1" : "0"),
            ]
        }
        return values
    }

    /// Writes keys of ours in one transaction, unless the directory is gone: a write would bring it back.
    func write(_ values: [(String, String)], _ what: String) async {
        let path = path
        await persist(what, isTransaction: true) { (store) throws(HypervisorFailure) in
            guard try store.read(path.key(BusKeys.state)) != nil else { return }
            for (name, value) in values { try store.write(path.key(name), value) }
        }
    }

    private func holdInitWait() {
        Task(executorPreference: environment.controlLoop) {
            await self.environment.controlLoop.sleep(for: BlockBackend.initWaitTime)
            await self.enqueue(.initWaitHeld)
        }
    }

    private func reportError(_ text: String) async {
        say(text, level: .error)
        let node = path.errorNode
        let value = "1 \(text)"
        await persist("write the error node") { (store) throws(HypervisorFailure) in try store.write(node, value) }
    }

    private func removeDirectory() async {
        let directory = path.relative
        await persist("remove the device's directory") { (store) throws(HypervisorFailure) in
            try store.remove(directory)
        }
    }

    // MARK: connecting

    private func connect(isTakeover: Bool) async {
        // What the frontend and the journal say is looked at here: a crash of this is this device's.
        let mark = environment.marks?.mark(for: "\(path.kind)/\(path.index)")
        mark?.begin()
        defer { mark?.end() }
        do throws(BackendFailure) {
            let connection = try await negotiate()
            let identity = try await domainIdentity()
            let journal = try openJournal(connection, identity, isTakeover: isTakeover)
            try await openQueues(connection, journal, isTakeover: isTakeover)
            self.connection = connection
            say("\(isTakeover ? "took over" : "connected"): \(connection.summary)")
            events.append(.connected)
        } catch {
            await closeQueues()
            if error.kind == .frontend { log.fault(error.text) } else { log.failure(error.text) }
            events.append(.connectFailed(error.text))
        }
    }

    private func negotiate() async throws(BackendFailure) -> BlockConnection {
        let (frontend, offer) = (keys?.frontend ?? path.frontend, offer)
        let values = await persist("read the frontend's keys") {
            (store) throws(HypervisorFailure) -> [String: String] in
            var values: [String: String] = [:]
            for name in BlockConnection.commonKeys { values[name] = try store.read("\(frontend)/\(name)") }
            for name in BlockConnection.ringKeys(values, offer) { values[name] = try store.read("\(frontend)/\(name)") }
            return values
        }
        do throws(BlockConnectionFault) {
            return try BlockConnection(values, offer)
        } catch {
            throw BackendFailure(.frontend, "the frontend's keys: \(error)")
        }
    }

    private func domainIdentity() async throws(BackendFailure) -> String {
        let (domains, domain) = (environment.hypervisor.domains, path.domain)
        let result = await environment.controlLoop.blocking { () -> Result<DomainIdentity?, HypervisorFailure> in
            do throws(HypervisorFailure) { return .success(try domains.identity(of: domain)) } catch {
                return .failure(error)
            }
        }
        switch result {
        case .success(let identity?): return identity.text
        case .success(nil): throw BackendFailure(.notFound, "domain \(domain) is gone")
        case .failure(let error): throw BackendFailure(.host, "\(error)")
        }
    }

    var journalPath: FilePath {
        environment.runDirectory.appending("journal").appending("\(path.kind)-\(path.domain)-\(path.index)")
    }

    private func openJournal(
        _ connection: BlockConnection,
        _ domain: String,
        isTakeover: Bool
    ) throws(BackendFailure) -> RequestJournal {
        let identity = connection.identity(domain: domain)
        let (queues, slots) = (connection.queues.count, connection.slotsPerQueue)
        if isTakeover {
            if let journal = RequestJournal.reopen(
                at: journalPath,
                identity: identity,
                queueCount: queues,
                slotsPerQueue: slots
            ) {
                return journal
            }
            throw BackendFailure(
                .host,
                "no journal of this connection at \(journalPath): what was unanswered is unknown"
            )
        }
        do {
            return try RequestJournal.create(
                at: journalPath,
                identity: identity,
                queueCount: queues,
                slotsPerQueue: slots
            )
        } catch {
            throw BackendFailure(.host, "cannot make the journal \(journalPath): \(error)")
        }
    }

    private func openQueues(
        _ connection: BlockConnection,
        _ journal: RequestJournal,
        isTakeover: Bool
    ) async throws(BackendFailure) {
        let alarm = QueueAlarm(signal)
        self.alarm = alarm
        reportedFault = false
        let mark = environment.marks?.mark(for: "\(path.kind)/\(path.index)")
        for (index, wanted) in connection.queues.enumerated() {
            let facts = QueueFacts(
                path: path,
                index: index,
                abi: connection.abi,
                usesPersistentGrants: connection.usesPersistentGrants,
                grants: environment.hypervisor.grants,
                data: try environment.dataLoop(device: path.index, queue: index),
                mark: mark
            )
            let queue = BlockQueue(facts, alarm)
            let opening = BlockQueue.Opening(
                ring: try mapRing(wanted.references),
                journal: journal,
                port: wanted.port,
                medium: medium,
                limits: currentLimits,
                log: FaultLog(logger),
                isTakeover: isTakeover
            )
            try await queue.open(opening)
            queues.append(queue)
        }
    }

    private func mapRing(_ references: [GrantReference]) throws(BackendFailure) -> SharedPages {
        do throws(HypervisorFailure) {
            return try environment.hypervisor.grants.map(references, of: path.domain, access: .readWrite)
        } catch {
            throw BackendFailure(.frontend, "cannot map the ring: \(error)")
        }
    }

    // MARK: disconnecting

    /// Finishes what is in flight without keeping people and scripts waiting.
    private func startDisconnecting() {
        Task(executorPreference: environment.controlLoop) {
            await self.finishDisconnecting()
        }
    }

    private func finishDisconnecting() async {
        await closeQueues()
        if !isDraining { RequestJournal.remove(at: journalPath) }
        enqueue(.disconnected)
    }

    private func closeQueues() async {
        let queues = queues
        for queue in queues { await queue.drain() }
        for queue in queues {
            pastMetrics.merge(await queue.account().metrics)
            await queue.close()
        }
        self.queues = []
        connection = nil
        alarm = nil
    }
}
