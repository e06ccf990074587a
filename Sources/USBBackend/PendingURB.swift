// One URB between its taking and its answer. Lives in a table, never passed by value on the way.

internal import HostUSB
internal import SharedRing
internal import XenWire

/// The state of one journal slot's URB. Its number names the journal's slot, the buffer and the host's transfer.
struct PendingURB {
    enum Stage: Sendable {
        case free
        /// In this turn's hands.
        case taken
        /// Waits for another URB of its endpoint, or for its device.
        case parked
        /// The host has it.
        case running
        /// The host has it as a part of another's transfer.
        case joined
        /// Answered, not yet published.
        case answered
    }
    /// What is done through the host's stack in place of a transfer.
    enum Interception: Hashable, Sendable {
        case setConfiguration(UInt8)
        case setInterface(UInt8, alternate: UInt8)
        case clearHalt
    }

    /// Of the request, also of one that cannot be validated.
    var id: UInt16 = 0
    /// As it came.
    var portNumber: UInt8 = 0
    var request = URBRequest.unused
    var stage = Stage.free
    /// While `running` or `joined`.
    var device: (any OpenUSBDevice)?
    /// The slot whose transfer it is a part of, and the slot of the next part; -1: none.
    var head = -1
    var next = -1
    var interception: Interception?
    /// Its endpoint is barred until it has ended.
    var holdsQueue = false
    /// Of a transfer whose packets are split (`USBRingState.receive`): bytes of it that were there already, and bytes that the
    /// guest wants of it; 0: it is no such transfer.
    var lead = 0
    var wanted = 0
    var isUnlinked = false
    /// Why we took it back ourselves.
    var dropped: USBFault?
    /// Why it cannot be carried out, found out before it was its turn.
    var fault: USBFault?
    /// The index of its answer, once it is answered.
    var response: UInt32 = 0
    var packetCount = 0
    var startFrame: UInt16 = 0
    /// Nanoseconds.
    var takenAt: UInt64 = 0

    /// A free slot's.
    init() {}

    /// One that was just taken.
    init(_ raw: RawURB<Slot>, takenAt: UInt64) {
        id = raw.id
        portNumber = raw.pipe.portNumber
        stage = .taken
        self.takenAt = takenAt
    }
}

extension URBRequest {
    /// A transfer of this request that is shorter than asked halts its endpoint's queue.
    var endsQueueIfShort: Bool {
        switch pipe.type {
        case .bulk, .interrupt: shortNotOK && direction == .in
        case .control, .isochronous: false
        }
    }

    /// Its endpoint's queue is halted when it fails.
    var mayHalt: Bool { pipe.type == .bulk || pipe.type == .interrupt }

    /// Nothing of its endpoint may begin before this has ended. Of control requests some are ours, some the host's stack's and
    /// some the device's: in flight together they would end in another order than they were given in, which no bus does
    /// (USB 2.0, 5.5.5).
    var holdsQueue: Bool { endsQueueIfShort || pipe.type == .control }
}

/// A transfer that came to its end in this turn.
struct EndedURB {
    let slot: Int
    let status: USBStatus
    let byteCount: Int
    /// Where its data begin in our pages.
    let place: Int
}
