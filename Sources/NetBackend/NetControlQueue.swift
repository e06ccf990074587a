// The control ring: settings that a frontend makes for the whole card.

internal import BackendCore
internal import HostIO
internal import Hypervisor
internal import SharedRing
internal import XenWire

/// One request at a time, on the loop of the card's first queue. There is no hurry here.
actor NetControlQueue {
    nonisolated let facts: NetQueueFacts
    private let queueCount: Int

    nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe facts.data.loop.asUnownedSerialExecutor() }

    init(_ facts: NetQueueFacts, queueCount: Int) {
        self.facts = facts
        self.queueCount = queueCount
    }

    func open(
        ring: SharedPages,
        port: EventChannelPort,
        journal: consuming RingJournal,
        isTakeover: Bool,
        log: FaultLog
    ) throws(BackendFailure) {
    }

    func close() {}
}
