// Attaching to a frontend's rings, and releasing them.

internal import BackendCore
internal import DiskImages
internal import HostIO
internal import Hypervisor
internal import Logging
internal import SharedRing
internal import XenWire

extension BlockBackend {
    var features: [(String, String)] {
        var values: [(String, String)] = [
            (BlockKeys.featureMaxIndirectSegments, "\(BlockCapabilities.maxIndirectSegments)"),
            (BusKeys.multiQueueMaxQueues, "\(capabilities.maxQueues)"),
            (BlockKeys.maxRingPageOrder, "\(capabilities.maxRingPageOrder)"),
            (BlockKeys.featureFlushCache, "1"),
            (BlockKeys.featureBarrier, "1"),
        ]
        if capabilities.persistentGrants { values.append((BlockKeys.featurePersistent, "1")) }
        return values
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

    func connect(isTakeover: Bool) async throws(BackendFailure) -> String {
        let connection: BlockConnection = try await negotiate(capabilities)
        var rings: [SharedPages] = []
        for queue in connection.queues { rings.append(try mapRing(queue.references)) }
        let (journal, isTakeover) = try openJournal(
            identity: connection.identity(domain: try await domainIdentity()),
            layout: .slots(connection.slotsPerQueue, queues: connection.queues.count),
            rings: rings,
            isTakeover: isTakeover
        )
        try await openQueues(connection, rings, journal, isTakeover: isTakeover)
        self.connection = connection
        return connection.summary
    }

    private func openQueues(
        _ connection: BlockConnection,
        _ rings: [SharedPages],
        _ journal: RequestJournal,
        isTakeover: Bool
    ) async throws(BackendFailure) {
        let latch = BreakdownLatch(signal)
        self.latch = latch
        let mark = mark
        for (index, wanted) in connection.queues.enumerated() {
            let facts = BlockQueueFacts(
                path: path,
                index: index,
                abi: connection.abi,
                usesPersistentGrants: connection.usesPersistentGrants,
                grants: environment.dataGrants,
                data: try environment.dataLoop(device: path.index, queue: index),
                mark: CrashLane(mark, queue: index)
            )
            let queue = BlockQueue(facts, latch)
            let opening = BlockQueue.Opening(
                ring: rings[index],
                journal: journal,
                port: wanted.port,
                medium: medium,
                limits: currentLimits,
                log: FaultLog(sharing: life.log),
                isTakeover: isTakeover
            )
            try await queue.open(opening)
            queues.append(queue)
        }
    }

    func disconnect() async {
        let queues = queues
        for queue in queues { await queue.drain() }
        for queue in queues {
            pastMetrics.merge(await queue.account().metrics)
            await queue.close()
        }
        self.queues = []
        connection = nil
        latch = nil
    }

    func release() async {
        for queue in queues { await queue.abandon() }
        queues = []
        medium = nil
    }
}
