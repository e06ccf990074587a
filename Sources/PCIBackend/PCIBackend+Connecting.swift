// Attaching to a frontend's page, and letting go of it.

internal import BackendCore
internal import HostIO
internal import HostPCI
internal import Hypervisor
internal import Logging
internal import SharedRing
internal import XenWire

extension PCIBackend {
    /// Where the cards are, before state 2.
    var features: [(String, String)] { published }

    func connect(isTakeover: Bool) async throws(BackendFailure) -> String {
        await reconfiguring?.value
        guard let queue else { throw BackendFailure(.host, "no cards") }
        let connection: PCIConnection = try await negotiate(())
        let page = try mapRing([connection.page])
        let (journal, hasMemory) = try openJournal(
            identity: connection.identity(domain: try await domainIdentity()),
            layout: .slots(1, queues: 0, stateBytes: PCICardMemory.totalBytes),
            rings: [],
            isTakeover: isTakeover
        )
        let opening = PCIQueue.Opening(
            page: page,
            port: connection.port,
            journal: journal,
            log: FaultLog(sharing: life.log),
            isTakeover: isTakeover,
            hasMemory: hasMemory
        )
        try await queue.open(opening)
        self.connection = connection
        let count = await queue.places().count
        return "\(count) card\(count == 1 ? "" : "s"), \(connection.summary)"
    }

    func disconnect() async {
        await reconfiguring?.value
        if let queue {
            await queue.drain(lasts: life.isDraining)
            await queue.close()
            // The toolstack numbers its list anew when a card has gone.
            if !life.isDraining, let entries = try? await readEntries() { await list(entries, queue) }
        }
        connection = nil
    }

    func release() async {
        await reconfiguring?.value
        errorWatch?.end()
        errorWatch = nil
        if let queue { await queue.abandon() }
        queue = nil
        connection = nil
    }
}
