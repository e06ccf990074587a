// The two rings of one queue without actor, loop and events: what the benchmark measures.

package import BackendCore
package import HostNetwork
package import Hypervisor
internal import SharedRing
internal import SystemPackage
package import XenWire

/// One queue of one card whose turns the caller runs, on one thread.
package struct NetLane: ~Copyable {
    private var transmit: NetTransmit
    private var receive: NetReceive
    private let scratch: NetScratch
    private let latch: BreakdownLatch
    private let journal: RequestJournal

    /// - Parameters:
    ///   - keys: those of a frontend with one queue, as it writes them.
    ///   - grants: for the copies; rings are mapped by the environment's hypervisor.
    ///   - device: stands for the interface.
    ///   - usesVhost: packets go through a thread of its, not by system calls.
    package init(
        _ path: DevicePath,
        _ environment: WorkerEnvironment,
        keys: [String: String],
        grants: any GrantTable,
        device: any PacketDevice,
        usesVhost: Bool = false
    ) throws {
        let connection = try NetConnection(FrontendNodes(keys), NetCapabilities(maxQueues: 1))
        let journal = try RequestJournal.create(
            at: environment.runDirectory.appending("lane"),
            identity: "lane",
            layout: .rings(3, slots: NetWire.transmitSlots, stateBytes: NetSettings.byteCount)
        )
        let latch = BreakdownLatch(WatchSignal())
        let facts = NetQueueFacts(
            path: path,
            index: 0,
            grants: grants,
            data: try environment.dataLoop(device: path.index, queue: 0),
            shared: NetSharedState(connection, device, journal),
            offloads: connection.offloads,
            interface: device.name,
            latch: latch,
            mark: CrashLane(nil, queue: 0)
        )
        let (queue, wanted) = (try device.openQueues(1)[0], connection.queues[0])
        let (log, mapping) = (FaultLog(environment.logger), environment.hypervisor.grants)
        let out = try mapping.map([wanted.transmitRing], of: path.domain, access: .readWrite)
        let back = try mapping.map([wanted.receiveRing], of: path.domain, access: .readWrite)
        let port: any PacketPort = usesVhost ? try VhostPort(queue, device.vhost) : PlainPort(queue, try PacketMemory())
        let transmit = try NetTransmit(
            facts,
            pages: out,
            journal: journal.ring(0),
            port: port,
            log: log,
            isTakeover: false
        )
        let receive = try NetReceive(
            facts,
            pages: back,
            journal: journal.ring(1),
            port: port,
            accepts: connection.accepts,
            log: log,
            isTakeover: false
        )
        scratch = try NetScratch()
        self.journal = journal
        self.latch = latch
        self.transmit = transmit
        self.receive = receive
    }

    deinit { RequestJournal.remove(at: journal.path) }

    /// Turns until the transmit ring is empty.
    /// - Returns: false if the frontend or the host broke something.
    @inline(never)
    package mutating func sendAll() -> Bool {
        while true {
            switch transmit.turn(scratch, notify: {}) {
            case .idle: return transmit.pause == nil
            case .more: continue
            case .broken: return false
            }
        }
    }

    /// Turns until the interface is empty.
    /// - Returns: false if the frontend or the host broke something, or there are too few pages.
    @inline(never)
    package mutating func receiveAll() -> Bool {
        var notify = false
        receive.mayHaveInput()
        while true {
            switch receive.turn(scratch, notify: &notify) {
            case .idle: return !receive.isWaiting
            case .more: continue
            case .broken: return false
            }
        }
    }

    /// Packets delivered to the host, and to the frontend.
    package var delivered: (toHost: UInt64, toFrontend: UInt64) {
        (transmit.metrics.transmitPackets, receive.metrics.receivePackets)
    }
}
