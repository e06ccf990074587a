// An open simulated device: its slots, its endpoints' queues, and the delivery of results.

internal import Glibc
internal import HostIO
internal import HostUSB
internal import SharedRing

/// Transfers wait in their endpoint's queue; the first of each queue is asked for until it has an answer.
@safe
final class SimulatedUSBDevice: OpenUSBDevice, CompletionTarget, @unchecked Sendable {
    // SAFETY: everything that changes belongs to `loop`: its members are called there, as the protocol says.
    let facts: USBDeviceFacts
    let loop: EventLoop
    let function: any SimulatedFunction
    let faults: SimulatedFaults
    /// Nanoseconds of a frame.
    let frame: UInt64
    var descriptors: USBDescriptors { function.descriptors }
    private(set) var packets = USBPacketTable(slots: 0, limit: 0)
    private(set) var plan: USBTransferPlan?

    /// Gives the device back to the bus.
    private let release: @Sendable (SimulatedUSBDevice) -> Void
    /// Tells the bus that the device went by itself.
    let pulled: @Sendable () -> Void
    private var client: (any USBDeviceClient)?
    private var target: TargetID?
    private var results: ContiguousArray<USBResult> = []
    private var isArmed = false
    private(set) var isGone = false
    private var hasToldVanished = false
    private var isClosing = false
    private var isClosed = false
    private var closers: [@Sendable () -> Void] = []

    var activeConfiguration: UInt8? = 1
    /// Alternate settings of the active configuration's interfaces.
    var alternates: [UInt8: UInt8] = [:]
    var slots: ContiguousArray<SimulatedSlot> = []
    /// By number, those to the host 16 higher; 0 is the control endpoint.
    var endpoints = ContiguousArray(repeating: SimulatedEndpoint(), count: 32)

    init(
        _ function: any SimulatedFunction,
        _ facts: USBDeviceFacts,
        _ faults: SimulatedFaults,
        _ loop: EventLoop,
        _ frame: Duration,
        release: @escaping @Sendable (SimulatedUSBDevice) -> Void,
        pulled: @escaping @Sendable () -> Void
    ) {
        self.function = function
        self.facts = facts
        self.faults = faults
        self.loop = loop
        let (seconds, attoseconds) = frame.components
        self.frame = UInt64(seconds) * 1_000_000_000 + UInt64(attoseconds) / 1_000_000_000
        self.release = release
        self.pulled = pulled
    }

    func begin(_ plan: USBTransferPlan, client: any USBDeviceClient) throws(HostFailure) {
        precondition(loop.isOnLoop && self.plan == nil && !isClosing)
        self.plan = plan
        self.client = client
        packets = USBPacketTable(slots: plan.slots, limit: plan.packets)
        slots = ContiguousArray(repeating: SimulatedSlot(), count: plan.slots)
        results.reserveCapacity(plan.slots)
        target = loop.attach(self)
        configure()
        function.setWake { [weak self, loop] in loop.perform { self?.turn() } }
        if isGone { armDelivery() }
    }

    func submit(_ transfer: USBTransfer, slot: UInt32) {
        let index = take(slot, transfer)
        guard let plan, transfer.offset >= 0, transfer.byteCount >= 0,
            transfer.byteCount <= plan.pages.byteCount - transfer.offset, transfer.packetCount <= plan.packets
        else { preconditionFailure("a transfer's range is in the plan's pages") }
        packets.forget(slot, count: transfer.packetCount)
        if isGone || isClosing { return finish(index, isGone ? .noDevice : .cancelled) }
        guard let endpoint = endpoint(of: transfer) else { return finish(index, .refused) }
        enqueue(index, on: endpoint)
        turn()
    }

    func perform(_ operation: USBOperation, slot: UInt32) {
        let index = take(slot, nil)
        finish(index, isGone ? .noDevice : isClosing ? .cancelled : carryOut(operation))
        turn()
    }

    func cancel(_ slot: UInt32) {
        precondition(loop.isOnLoop && Int(slot) < slots.count)
        if slots[Int(slot)].endpoint < 0 { return }
        finish(Int(slot), .cancelled)
        turn()
    }

    func close(_ closed: @escaping @Sendable () -> Void) {
        precondition(loop.isOnLoop)
        if isClosed { return loop.perform(closed) }
        closers.append(closed)
        if isClosing { return }
        isClosing = true
        function.setWake(nil)
        finishAll(isGone ? .noDevice : .cancelled)
        if target == nil { loop.perform { self.closeNow() } } else { armDelivery() }
    }

    /// The bus unplugs the device.
    func unplug() {
        if isGone { return }
        isGone = true
        finishAll(.noDevice)
        armDelivery()
    }

    /// Its owner is gone: no more results are delivered.
    func fallSilent() {
        function.setWake(nil)
        if let target { loop.detach(target) }
        target = nil
        client = nil
    }

    func completed(_ completions: borrowing CompletionBatch) {
        for position in 0..<completions.count {
            let slot = completions[position].slot
            switch slot {
            case SimulatedUSBDevice.deliveryMark: isArmed = false
            case ..<SimulatedUSBDevice.endpointMark:
                if Int(slot) < slots.count { slots[Int(slot)].isHeld = false }
            default: endpoints[Int(slot &- SimulatedUSBDevice.endpointMark) & 31].isTimed = false
            }
        }
        turn()
        deliver()
    }

    private func take(_ slot: UInt32, _ transfer: USBTransfer?) -> Int {
        precondition(loop.isOnLoop && !isClosed && Int(slot) < slots.count && slots[Int(slot)].isFree)
        slots[Int(slot)] = SimulatedSlot()
        slots[Int(slot)].isFree = false
        if let transfer { slots[Int(slot)].transfer = transfer }
        return Int(slot)
    }
}

// Results.
extension SimulatedUSBDevice {
    private static let deliveryMark = UInt32.max
    private static let endpointMark = UInt32(1) << 24

    /// Takes a slot out of its queue and notes how it ended.
    func finish(_ index: Int, _ status: USBStatus, _ byteCount: Int = 0) {
        dequeue(index)
        if slots[index].isHeld, let target { loop.cancelTimers(target: target, slot: UInt32(index)) }
        slots[index].isFree = true
        results.append(USBResult(slot: UInt32(index), status: status, byteCount: byteCount))
        armDelivery()
    }

    func finishAll(_ status: USBStatus) {
        for index in slots.indices where !slots[index].isFree && slots[index].endpoint >= 0 { finish(index, status) }
    }

    /// Makes the loop return to a slot, or to an isochronous endpoint, after some time.
    func hold(_ index: Int, for delay: Duration) {
        if let target { loop.after(delay, target: target, slot: UInt32(index)) }
    }

    func time(endpoint: Int, nanoseconds: UInt64) {
        endpoints[endpoint].isTimed = true
        guard let target else { return }
        let slot = SimulatedUSBDevice.endpointMark &+ UInt32(endpoint)
        loop.after(.nanoseconds(Int64(clamping: nanoseconds)), target: target, slot: slot)
    }

    private func armDelivery() {
        guard !isArmed, let target else { return }
        isArmed = true
        loop.soon(target: target, slot: SimulatedUSBDevice.deliveryMark)
    }

    private func deliver() {
        guard let client else { return }
        if !results.isEmpty {
            var run: ContiguousArray<USBResult> = []
            swap(&run, &results)
            let batch = USBResultBatch(run)
            client.completed(batch, of: self)
            recycle(batch.takeStorage())
        }
        if !results.isEmpty { return armDelivery() }
        if isGone, !hasToldVanished {
            hasToldVanished = true
            client.vanished(self)
        }
        if isClosing { closeNow() }
    }

    private func recycle(_ storage: consuming ContiguousArray<USBResult>) {
        if !results.isEmpty { return }
        storage.removeAll(keepingCapacity: true)
        results = storage
    }

    private func closeNow() {
        if let target { loop.detach(target) }
        target = nil
        client = nil
        plan = nil
        isClosed = true
        release(self)
        let all = closers
        closers = []
        for closed in all { closed() }
    }

    /// Monotonic nanoseconds.
    static var now: UInt64 {
        var time = timespec()
        // SAFETY: a local of this call.
        _ = unsafe clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
    }
}
