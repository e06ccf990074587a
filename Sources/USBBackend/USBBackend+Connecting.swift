// Attaching to a frontend's rings, and releasing them.

internal import BackendCore
internal import HostIO
internal import Hypervisor
internal import Logging
internal import SharedRing
internal import XenWire

extension USBBackend {
    /// usbif.h has no features to publish: what a frontend must know are the toolstack's own keys.
    var features: [(String, String)] { [] }

    func connect(isTakeover: Bool) async throws(BackendFailure) -> String {
        guard let queue else { throw BackendFailure(.host, "no ports") }
        let connection: USBConnection = try await negotiate(())
        let urbRing = try mapRing([connection.urbRing])
        let connectionRing = try mapRing([connection.connectionRing])
        let (journal, isTakeover) = try openJournal(
            identity: connection.identity(domain: try await domainIdentity()),
            layout: .slots(
                USBWire.urbSlots,
                queues: 1,
                requestBytes: USBWire.urbStride,
                stateBytes: USBPortMemory.totalBytes
            ),
            rings: [urbRing, connectionRing],
            isTakeover: isTakeover
        )
        let latch = BreakdownLatch(signal)
        self.latch = latch
        let opening = USBQueue.Opening(
            urbRing: urbRing,
            connectionRing: connectionRing,
            journal: journal,
            port: connection.port,
            latch: latch,
            log: FaultLog(sharing: life.log),
            isTakeover: isTakeover
        )
        try await queue.open(opening)
        self.connection = connection
        return connection.summary
    }

    func disconnect() async {
        if let queue {
            await queue.drain(lasts: life.isDraining)
            await queue.close()
        }
        connection = nil
        latch = nil
    }

    func release() async {
        if let queue { await queue.abandon() }
        queue = nil
        connection = nil
        latch = nil
    }
}
