// What a block backend offers before and after it connects, read from its keys.

internal import Hypervisor
internal import XenWire

/// The backend's features that decide how the rings are set up.
struct OfferedBlockFeatures: Sendable {
    let maxRingPageOrder: Int
    let maxQueues: Int
    let maxIndirectSegments: Int
    let persistent: Bool

    init(reading bus: FrontendBus, _ backend: String) async throws(FrontendFailure) {
        let keys = try await bus.read(
            [
                BlockKeys.maxRingPageOrder, BusKeys.multiQueueMaxQueues, BlockKeys.featureMaxIndirectSegments,
                BlockKeys.featurePersistent,
            ],
            of: backend
        )
        maxRingPageOrder = keys[BlockKeys.maxRingPageOrder].flatMap { Int(decimal: $0) } ?? 0
        maxQueues = keys[BusKeys.multiQueueMaxQueues].flatMap { Int(decimal: $0) } ?? 1
        maxIndirectSegments = keys[BlockKeys.featureMaxIndirectSegments].flatMap { Int(decimal: $0) } ?? 0
        persistent = keys[BlockKeys.featurePersistent] == "1"
    }

    func ringPageOrder(_ options: BlockFrontendOptions) -> Int { min(options.ringPageOrder, maxRingPageOrder) }

    func queueCount(_ options: BlockFrontendOptions) -> Int { max(1, min(options.queueCount, maxQueues)) }

    /// Segments of one request. One page of them is enough for us: 512.
    func maxSegments(_ options: BlockFrontendOptions) -> Int {
        let indirect = min(options.indirectSegments, maxIndirectSegments, BlockWire.segmentsPerIndirectPage)
        return max(BlockWire.maxSegments, indirect)
    }
}

extension BlockFrontendConnection {
    /// Reads what a backend publishes before state 4 (xen-blkfront.c, `blkfront_connect`).
    init(
        reading bus: FrontendBus,
        _ directory: String,
        _ offer: OfferedBlockFeatures,
        _ options: BlockFrontendOptions,
        backend: DomainID,
        ringSize: Int
    ) async throws(FrontendFailure) {
        let names: [(String, BlockLimits.Features)] = [
            (BlockKeys.featureFlushCache, .flush), (BlockKeys.featureBarrier, .barrier),
            (BlockKeys.featureDiscard, .discard), (BlockKeys.discardSecure, .secureDiscard),
        ]
        let keys = try await bus.read(
            [BlockKeys.sectors, BlockKeys.sectorSize, BlockKeys.info] + names.map(\.0),
            of: directory
        )
        guard let sectors = keys[BlockKeys.sectors].flatMap({ UInt64(decimal: $0) }) else {
            throw .badKey(BlockKeys.sectors, value: keys[BlockKeys.sectors])
        }
        guard let info = keys[BlockKeys.info].flatMap({ UInt32(decimal: $0) }) else {
            throw .badKey(BlockKeys.info, value: keys[BlockKeys.info])
        }
        guard let size = keys[BlockKeys.sectorSize].flatMap({ Int(decimal: $0) }) else {
            throw .badKey(BlockKeys.sectorSize, value: keys[BlockKeys.sectorSize])
        }
        var features: BlockLimits.Features = []
        for (name, feature) in names where keys[name] == "1" { features.insert(feature) }
        self.sectors = sectors
        sectorSize = size
        flags = BlockDeviceFlags(rawValue: info)
        self.features = features
        persistent = options.persistent && offer.persistent
        maxSegments = offer.maxSegments(options)
        queueCount = offer.queueCount(options)
        self.ringSize = ringSize
        self.backend = backend
    }
}
