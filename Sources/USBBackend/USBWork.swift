// What a connected controller works with: rings, journal, the table of URBs. Every turn's stages are extensions of it.

internal import BackendCore
internal import HostUSB
internal import Hypervisor
internal import SharedRing
internal import XenWire

/// The rings of one connection with all that lies between taking an URB and publishing its answer. Owned by the queue,
/// given out `inout` once per turn. All tables have their size from birth on.
struct USBWork: ~Copyable {
    let facts: USBQueueFacts
    /// Those of the queue; index is port number − 1.
    let ports: [RootPort]
    let buffers: USBBuffers
    var ring: BackRing
    var connections: USBConnectionRing
    var events: USBPortEvents
    var journal: QueueJournal
    let memory: JournalState
    var metrics = USBMetrics()
    var log: FaultLog

    /// By journal slot.
    var urbs: [PendingURB]
    // Lists of slots; all but `parked` and `settled` are empty between turns.
    var fresh: [UInt8] = []
    /// In ring order.
    var parked: [UInt8] = []
    var ended: [EndedURB] = []
    /// Answered, not yet published.
    var settled: [UInt8] = []
    /// Whose copy each entry of the batch is.
    var copyOwners: [UInt8] = []
    /// URBs taken and not yet published.
    var inFlight = 0
    /// Something that a successor must know has changed.
    var isMemoryStale = false
    /// A queue of some port stands still.
    var isHalted = false
    /// Nanoseconds; the time of this turn.
    var now: UInt64 = 0

    init(
        _ facts: USBQueueFacts,
        ports: [RootPort],
        buffers: USBBuffers,
        ring: consuming BackRing,
        connections: consuming USBConnectionRing,
        journal: consuming QueueJournal,
        memory: JournalState,
        log: FaultLog
    ) {
        let slots = journal.slotCount
        precondition(slots <= USBWire.urbSlots)
        self.facts = facts
        self.ports = ports
        self.buffers = buffers
        self.ring = ring
        self.connections = connections
        self.journal = journal
        self.memory = memory
        self.log = log
        events = USBPortEvents(portCount: ports.count)
        urbs = Array(repeating: PendingURB(), count: slots)
        fresh.reserveCapacity(slots)
        parked.reserveCapacity(slots)
        ended.reserveCapacity(slots)
        settled.reserveCapacity(slots)
        copyOwners.reserveCapacity(facts.data.copies.capacity)
    }

    /// A slot's request, as it came.
    func raw(_ slot: Int) -> RawURB<Slot> { RawURB(journal.request(slot)) }
}
