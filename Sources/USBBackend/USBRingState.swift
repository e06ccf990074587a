// What a connected controller works with: rings, journal, the table of URBs. Every turn's stages are extensions of it.

internal import BackendCore
internal import HostUSB
internal import Hypervisor
internal import SharedRing
internal import XenWire

/// The rings of one connection with all that lies between taking an URB and publishing its answer. Owned by the queue,
/// passed on `inout` once per turn. All tables are allocated up front.
struct USBRingState: ~Copyable {
    let facts: USBQueueFacts
    /// Those of the queue; index is port number − 1.
    let ports: [RootPort]
    let buffers: USBBuffers
    var ring: SlotRing
    var connections: USBConnectionRing
    var events: USBPortEvents
    let memory: JournalState
    var metrics = USBMetrics()
    var log: FaultLog

    /// By journal slot.
    var urbs: [PendingURB]
    // Lists of slots; all but `parked` are empty between turns.
    var fresh: [UInt16] = []
    /// In ring order.
    var parked: [UInt16] = []
    var ended: [EndedURB] = []
    /// The request that each entry of the batch belongs to.
    var copyOwners: [UInt16] = []
    /// The state that a successor must know has changed.
    var isMemoryStale = false
    /// A queue of some port is halted.
    var isHalted = false
    /// Nanoseconds; the time of this turn.
    var now: UInt64 = 0

    init(
        _ facts: USBQueueFacts,
        ports: [RootPort],
        buffers: USBBuffers,
        ring: consuming SlotRing,
        connections: consuming USBConnectionRing,
        memory: JournalState,
        log: FaultLog
    ) {
        let slots = ring.slotCount
        precondition(slots <= USBWire.urbSlots)
        self.facts = facts
        self.ports = ports
        self.buffers = buffers
        self.ring = ring
        self.connections = connections
        self.memory = memory
        self.log = log
        events = USBPortEvents(portCount: ports.count)
        urbs = Array(repeating: PendingURB(), count: slots)
        fresh.reserveCapacity(slots)
        parked.reserveCapacity(slots)
        ended.reserveCapacity(slots)
        copyOwners.reserveCapacity(facts.data.copies.capacity)
    }

    /// URBs taken and not yet published.
    var inFlight: Int { ring.inFlight }

    /// A slot's request, as the frontend sent it.
    func raw(_ slot: Int) -> RawURB<Slot> { RawURB(ring.request(slot)) }
}
