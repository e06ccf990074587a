// An open device: transfers in preallocated slots, and their results.

public import HostIO
public import SharedRing

/// A device of the host with one owner. Everything but `facts` and `descriptors` is used on the loop that it was opened
/// for.
///
/// Transfers are numbered slots. A slot given to `submit` or `perform` belongs to the device until a `USBResult` with
/// its number has been delivered, exactly once, whatever happens; then it may be used again, also from within the
/// delivery. Nothing is delivered from within a call of the owner's. A device that was unplugged completes every slot
/// with `.noDevice`, and then calls `vanished`, once; what is submitted later completes the same way.
public protocol OpenUSBDevice: AnyObject, Sendable {
    /// As they were when the device was opened.
    var facts: USBDeviceFacts { get }
    /// As the device gave them to the host.
    var descriptors: USBDescriptors { get }
    /// bConfigurationValue of the active configuration; nil if there is none.
    var activeConfiguration: UInt8? { get }
    /// Lengths and results of isochronous packets, by slot.
    var packets: USBPacketTable { get }

    /// Prepares the slots. To be called once, before anything else.
    /// - Throws: `.host` if memory is short.
    func begin(_ plan: USBTransferPlan, client: any USBDeviceClient) throws(HostFailure)

    /// Starts a transfer. Its range must not be touched before the result. A transfer that the host refuses completes
    /// with a status that says so.
    func submit(_ transfer: USBTransfer, slot: UInt32)

    /// Does something for the device through the host's own USB stack. Transfers that are submitted meanwhile start when
    /// it is done.
    func perform(_ operation: USBOperation, slot: UInt32)

    /// Asks for an early end of a transfer. It completes as `.cancelled`, or with the result it already had. Nothing
    /// happens for a slot that is not in use; a `perform` ends by itself.
    func cancel(_ slot: UInt32)

    /// Cancels everything, delivers the results, returns the device to the kernel's drivers and calls `closed`, on the
    /// loop. What is submitted after this call and before `closed` is cancelled. Later calls only add their `closed`.
    func close(_ closed: @escaping @Sendable () -> Void)
}

/// The owner of a device. Called on the device's loop.
public protocol USBDeviceClient: AnyObject, Sendable {
    /// Slots that ended since the last call, in that order.
    func completed(_ results: borrowing USBResultBatch, of device: any OpenUSBDevice)
    /// The device is gone, all its slots are completed. It still has to be closed.
    func vanished(_ device: any OpenUSBDevice)
}

/// The descriptors of a device, as bytes (USB 2.0, 9.6).
public struct USBDescriptors: Hashable, Sendable {
    /// The device descriptor, 18 bytes.
    public var device: [UInt8]
    /// Each configuration with all that belongs to it: wTotalLength bytes, in the order of their indices.
    public var configurations: [[UInt8]]

    public init(device: [UInt8], configurations: [[UInt8]]) {
        self.device = device
        self.configurations = configurations
    }
}

/// What an owner will need at most, so that nothing is allocated later.
public struct USBTransferPlan: Sendable {
    /// Slots are 0 …< slots.
    public var slots: Int
    /// Most packets of an isochronous transfer.
    public var packets: Int
    /// Where all transfers' ranges are. The device holds it until it is closed.
    public var pages: PrivatePages

    public init(slots: Int, packets: Int, pages: PrivatePages) {
        self.slots = slots
        self.packets = packets
        self.pages = pages
    }
}

/// One transfer to be.
public struct USBTransfer: Hashable, Sendable {
    /// bmAttributes of the endpoint (USB 2.0, 9.6.6).
    public enum Kind: UInt8, Sendable, CaseIterable {
        /// The range begins with the setup packet, eight bytes (9.3), and goes on with wLength bytes of data.
        case control
        /// The range holds `packetCount` packets, one behind the other, as long as the packet table says.
        case isochronous
        case bulk
        case interrupt
    }
    public var kind: Kind
    /// Number and direction (bit 7: to the host). The direction of a control transfer is in its setup packet.
    public var endpoint: UInt8
    /// The range in the plan's pages.
    public var offset: Int
    public var byteCount: Int
    /// Isochronous packets, at most the plan's.
    public var packetCount: Int
    /// Whether fewer bytes from the device than asked for are an error (`.short`).
    public var refusesShort: Bool

    public init(
        _ kind: Kind,
        endpoint: UInt8,
        offset: Int,
        byteCount: Int,
        packetCount: Int = 0,
        refusesShort: Bool = false
    ) {
        self.kind = kind
        self.endpoint = endpoint
        self.offset = offset
        self.byteCount = byteCount
        self.packetCount = packetCount
        self.refusesShort = refusesShort
    }
}

/// Requests that the host's USB stack must know of: never sent as control transfers.
public enum USBOperation: Hashable, Sendable {
    /// SET_CONFIGURATION; 0 leaves the device without one. All interfaces of the new one are claimed.
    case setConfiguration(UInt8)
    /// SET_INTERFACE: an alternate setting with its endpoints.
    case setInterface(UInt8, alternate: UInt8)
    /// CLEAR_FEATURE(ENDPOINT_HALT): the data toggles of both ends start anew.
    case clearHalt(endpoint: UInt8)
    /// A reset of the port. The host gives the device its address and configuration again, all interfaces have their
    /// first alternate setting; a device that comes back as another one vanishes.
    case reset
}

/// How a transfer ended.
public enum USBStatus: UInt8, Hashable, Sendable, CaseIterable {
    case completed
    /// Fewer bytes than asked for, and the transfer refused that.
    case short
    /// The endpoint is halted, or the device does not know the request.
    case stall
    case timeout
    /// The device sent more than was asked for.
    case overflow
    /// The device is gone.
    case noDevice
    case cancelled
    /// No answer, a bad checksum, or the like.
    case transactionError
    /// The host did not start it: no such endpoint, another type, no bandwidth, no memory.
    case refused
}

/// A slot that ended.
public struct USBResult: Hashable, Sendable {
    public var slot: UInt32
    public var status: USBStatus
    /// Bytes moved, also before an error; of a control transfer those of its data stage. Of an isochronous one the sum of
    /// its packets'.
    public var byteCount: Int

    public init(slot: UInt32, status: USBStatus, byteCount: Int) {
        self.slot = slot
        self.status = status
        self.byteCount = byteCount
    }
}

/// The results of one turn. Never empty.
public struct USBResultBatch: ~Copyable, Sendable {
    @usableFromInline var items: ContiguousArray<USBResult>

    /// A batch of the given results, for tests of owners too.
    public init(_ items: ContiguousArray<USBResult>) { self.items = items }

    /// Results in the batch.
    @inlinable public var count: Int { items.count }

    /// The result at `position`, which must be below `count`.
    @inlinable public subscript(position: Int) -> USBResult { items[position] }

    /// The results as they were given, so that their storage can be used again.
    package consuming func takeStorage() -> ContiguousArray<USBResult> { items }
}
