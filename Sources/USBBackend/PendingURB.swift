// One URB from being taken to being answered. It lives in a table and is never passed by value.

internal import HostUSB
internal import SharedRing
internal import XenWire

/// The state of one journal slot's URB. Its number is that of the journal slot, the buffer and the host's transfer.
struct PendingURB {
    enum Stage: Sendable {
        case free
        /// Being processed in this turn.
        case taken
        /// Waiting for another URB of its endpoint, or for its device.
        case parked
        /// Submitted to the host.
        case running
        /// Submitted to the host as a part of another URB's transfer.
        case joined
        /// Answered, not yet published.
        case answered
    }
    /// What is done through the host's USB stack instead of a transfer.
    enum Interception: Hashable, Sendable {
        case setConfiguration(UInt8)
        case setInterface(UInt8, alternate: UInt8)
        case clearHalt
    }

    /// Of the request, also of one that cannot be validated.
    var id: UInt16 = 0
    /// As the frontend sent it.
    var portNumber: UInt8 = 0
    var request = URBRequest.unused
    var stage = Stage.free
    /// While `running` or `joined`.
    var device: (any OpenUSBDevice)?
    /// The slot whose transfer it is a part of, and the slot of the next part; -1 for none.
    var head = -1
    var next = -1
    var interception: Interception?
    /// Its endpoint is blocked until it has ended.
    var holdsQueue = false
    /// For a transfer whose packets are split (`USBRingState.receive`): bytes that were there already, and bytes that
    /// the guest asked for; 0 for any other transfer.
    var lead = 0
    var wanted = 0
    var isUnlinked = false
    /// Why we cancelled it ourselves.
    var dropped: USBFault?
    /// Why it cannot be carried out, found before its turn came.
    var fault: USBFault?
    /// The index of its answer, once it is answered.
    var response: UInt32 = 0
    var packetCount = 0
    var startFrame: UInt16 = 0
    /// Nanoseconds.
    var takenAt: UInt64 = 0

    /// For a free slot.
    init() {}

    /// For an URB that was just taken.
    init(_ raw: RawURB<Slot>, takenAt: UInt64) {
        id = raw.id
        portNumber = raw.pipe.portNumber
        stage = .taken
        self.takenAt = takenAt
    }
}

extension URBRequest {
    /// Whether a short transfer of this request halts its endpoint's queue.
    var endsQueueIfShort: Bool {
        switch pipe.type {
        case .bulk, .interrupt: shortNotOK && direction == .in
        case .control, .isochronous: false
        }
    }

    /// Whether its endpoint's queue is halted when it fails.
    var mayHalt: Bool { pipe.type == .bulk || pipe.type == .interrupt }

    /// Nothing else on its endpoint may begin before this has ended. Some control requests are answered by us, some by
    /// the host's USB stack and some by the device: in flight together they could complete out of order, which no bus
    /// allows (USB 2.0, 5.5.5).
    var holdsQueue: Bool { endsQueueIfShort || pipe.type == .control }
}

/// A transfer that ended in this turn.
struct EndedURB {
    let slot: Int
    let status: USBStatus
    let byteCount: Int
    /// Where its data begin in our pages.
    let place: Int
}
