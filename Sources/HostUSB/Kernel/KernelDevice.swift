// An open kernel device, on its owner's loop.

internal import CLinux
internal import CUSB
internal import Glibc
internal import HostIO
internal import SharedRing

/// Transfers are libusb's, allocated once per slot. The loop watches libusb's descriptors and lets it reap what has
/// ended; no thread waits for anything.
///
/// The kernel holds a device's lock while it resets it, or sets a configuration or an interface, for seconds if the
/// device does not answer; submitting, discarding and reaping need the same lock (drivers/usb/core/devio.c,
/// `usbdev_do_ioctl`). So those run on a helper thread, and until they have ended this device's transfers are neither
/// started nor reaped.
@safe
final class KernelDevice: OpenUSBDevice, CompletionTarget, @unchecked Sendable {
    // SAFETY: everything that changes belongs to `loop`: its members are called there, as the protocol says, and libusb's
    // callbacks come from within `pump`.
    let facts: USBDeviceFacts
    let descriptors: USBDescriptors
    private let loop: EventLoop
    private let handle: USBHandle
    private(set) var activeConfiguration: UInt8?
    private(set) var packets = USBPacketTable(slots: 0, limit: 0)
    private var transfers: TransferTable?
    private var plan: USBTransferPlan?
    private var client: (any USBDeviceClient)?
    private var target: TargetID?
    private var sources: [(descriptor: CInt, events: UInt16)] = []

    private enum SlotState {
        case free, waiting, flying, operating
    }
    private struct SlotUse {
        var state = SlotState.free
        var transfer = USBTransfer(.control, endpoint: 0, offset: 0, byteCount: 0)
        var operation: USBOperation?
        /// It was cancelled while it could not be.
        var isCancelled = false
    }
    private var slots: ContiguousArray<SlotUse> = []
    private var flying = 0
    /// The slot whose operation is running, and those submitted meanwhile.
    private var operating: UInt32?
    private var waiting: ContiguousArray<UInt32> = []
    private var results: ContiguousArray<USBResult> = []
    private var isArmed = false
    private var hasMore = false
    private var isGone = false
    private var hasToldVanished = false
    private var closing = Closing.open
    private var closers: [@Sendable () -> Void] = []

    private enum Closing {
        case open, ending, givingBack, closed
    }
    private static let deliveryMark = UInt32.max
    private static let operationMark = UInt32.max - 1
    private static let closeMark = UInt32.max - 2
    /// Rounds of reaping before the loop's other devices get their turns.
    private static let rounds = 8

    init(_ handle: USBHandle, _ loop: EventLoop) {
        self.handle = handle
        self.loop = loop
        facts = handle.facts
        descriptors = handle.descriptors
        activeConfiguration = handle.facts.activeConfiguration
    }

    func begin(_ plan: USBTransferPlan, client: any USBDeviceClient) throws(HostFailure) {
        precondition(loop.isOnLoop && self.plan == nil && closing == .open)
        transfers = try TransferTable(slots: plan.slots, packets: plan.packets, of: handle, for: self)
        packets = USBPacketTable(slots: plan.slots, limit: plan.packets)
        slots = ContiguousArray(repeating: SlotUse(), count: plan.slots)
        waiting.reserveCapacity(plan.slots)
        results.reserveCapacity(plan.slots)
        self.plan = plan
        self.client = client
        sources = handle.sources()
        let target = loop.attach(self)
        self.target = target
        for (index, source) in sources.enumerated() {
            loop.watch(source.descriptor, for: source.events, target: target, slot: UInt32(index))
        }
    }

    func submit(_ transfer: USBTransfer, slot: UInt32) {
        let index = take(slot)
        guard let plan, transfer.offset >= 0, transfer.byteCount >= 0,
            transfer.byteCount <= plan.pages.byteCount - transfer.offset, transfer.packetCount <= plan.packets
        else { preconditionFailure("a transfer's range is in the plan's pages") }
        packets.forget(slot, count: transfer.packetCount)
        slots[index].transfer = transfer
        if operating == nil { start(slot) } else { waiting.append(slot) }
    }

    func perform(_ operation: USBOperation, slot: UInt32) {
        slots[take(slot)].operation = operation
        if operating == nil { start(slot) } else { waiting.append(slot) }
    }

    func cancel(_ slot: UInt32) {
        precondition(loop.isOnLoop && Int(slot) < slots.count)
        switch slots[Int(slot)].state {
        case .flying where operating == nil: transfers?.cancel(slot)
        case .flying: slots[Int(slot)].isCancelled = true
        case .waiting where slots[Int(slot)].operation == nil:
            waiting.removeAll { $0 == slot }
            end(slot, .cancelled, 0)
        case .free, .waiting, .operating: return
        }
    }

    func close(_ closed: @escaping @Sendable () -> Void) {
        precondition(loop.isOnLoop)
        if closing == .closed { return loop.perform(closed) }
        closers.append(closed)
        if closing != .open { return }
        closing = .ending
        for slot in waiting { end(slot, isGone ? .noDevice : .cancelled, 0) }
        waiting.removeAll(keepingCapacity: true)
        for slot in slots.indices where slots[slot].state == .flying { cancel(UInt32(slot)) }
        if target == nil { target = loop.attach(self) }
        armDelivery()
    }

    func completed(_ completions: borrowing CompletionBatch) {
        for position in 0..<completions.count {
            let completion = completions[position]
            switch completion.slot {
            case KernelDevice.deliveryMark: isArmed = false
            case KernelDevice.operationMark: operationEnded(completion.result)
            case KernelDevice.closeMark: return closeEnded()
            default: hasMore = true
            }
        }
        if hasMore, operating == nil { pump() }
        deliver()
    }

    private func take(_ slot: UInt32) -> Int {
        precondition(loop.isOnLoop && Int(slot) < slots.count && slots[Int(slot)].state == .free)
        precondition(closing != .closed)
        slots[Int(slot)] = SlotUse(state: .waiting)
        return Int(slot)
    }
}

// Transfers.
extension KernelDevice {
    /// Starts what was submitted in a slot.
    private func start(_ slot: UInt32) {
        if isGone || closing != .open { return end(slot, isGone ? .noDevice : .cancelled, 0) }
        if let operation = slots[Int(slot)].operation { return start(operation, slot) }
        guard let plan, let transfers else { return }
        let transfer = slots[Int(slot)].transfer
        if transfer.kind == .control, !KernelDevice.mayBeSent(transfer, plan.pages) { return end(slot, .refused, 0) }
        slots[Int(slot)].state = .flying
        flying += 1
        let code = transfers.submit(transfer, slot, plan.pages, packets)
        if code == 0 { return }
        flying -= 1
        let isMissing = code == CInt(LIBUSB_ERROR_NO_DEVICE.rawValue)
        end(slot, isMissing ? .noDevice : .refused, 0)
        if isMissing { lookForDeparture() }
    }

    /// Whether a control transfer is whole, and not one of the requests that the kernel must make itself.
    private static func mayBeSent(_ transfer: USBTransfer, _ pages: PrivatePages) -> Bool {
        if transfer.byteCount < USBSetup.byteCount { return false }
        let setup = USBSetup(pages.slot(at: transfer.offset, byteCount: USBSetup.byteCount))
        return !setup.isForHost && Int(setup.length) <= transfer.byteCount - USBSetup.byteCount
    }

    /// libusb is done with a transfer. Called from within `pump`.
    func ended(_ slot: UInt32) {
        guard let transfers, slots[Int(slot)].state == .flying else { return }
        flying -= 1
        let transfer = slots[Int(slot)].transfer
        var (status, count) = transfers.result(slot)
        if transfer.kind == .isochronous {
            count = transfers.readPackets(slot, transfer.packetCount, into: packets)
        } else if status == .completed, transfer.refusesShort, count < asked(transfer) {
            status = .short
        }
        // An endpoint that a new setting no longer has reports the same as a device that is gone
        // (usb_hcd_flush_endpoint).
        if status == .noDevice, !isDeparted { status = .cancelled }
        end(slot, status, count)
    }

    private func asked(_ transfer: USBTransfer) -> Int {
        guard transfer.kind == .control else { return transfer.endpoint & 0x80 != 0 ? transfer.byteCount : 0 }
        guard let plan else { return 0 }
        let setup = USBSetup(plan.pages.slot(at: transfer.offset, byteCount: USBSetup.byteCount))
        return setup.isToHost ? Int(setup.length) : 0
    }

    private func pump() {
        hasMore = false
        for _ in 0..<KernelDevice.rounds {
            handle.pump()
            let events = linux_poll_now(handle.descriptor, Int16(POLLOUT))
            if events & Int16(POLLERR | POLLHUP) != 0 { lookForDeparture() }
            if events & Int16(POLLOUT) == 0 || flying == 0 { return }
        }
        // Some are left, and there will be no other event for them.
        hasMore = true
        armDelivery()
    }

    private var isDeparted: Bool {
        linux_poll_now(handle.descriptor, Int16(POLLOUT)) & Int16(POLLERR | POLLHUP) != 0
    }

    private func lookForDeparture() {
        if isGone || !isDeparted { return }
        isGone = true
        if operating == nil { startWaiting() }
        armDelivery()
    }
}

// Operations.
extension KernelDevice {
    private func start(_ operation: USBOperation, _ slot: UInt32) {
        guard let target else { return }
        slots[Int(slot)].state = .operating
        operating = slot
        let handle = handle
        loop.offload(
            {
                switch operation {
                case .setConfiguration(let value): handle.setConfiguration(value)
                case .setInterface(let interface, let alternate): handle.setInterface(interface, alternate)
                case .clearHalt(let endpoint): handle.clearHalt(endpoint)
                case .reset: handle.reset()
                }
            },
            target: target,
            slot: KernelDevice.operationMark
        )
    }

    private func operationEnded(_ code: Int32) {
        guard let slot = operating else { return }
        operating = nil
        hasMore = true
        let operation = slots[Int(slot)].operation
        if case .setConfiguration(let value) = operation, code == 0 { activeConfiguration = value == 0 ? nil : value }
        // After a reset: the device came back as another one, and the kernel will disconnect it.
        let isOther = operation == .reset && code == CInt(LIBUSB_ERROR_NOT_FOUND.rawValue)
        let status = KernelDevice.status(ofOperation: code)
        end(slot, isOther || (status == .noDevice && isDeparted) ? .noDevice : status, 0)
        lookForDeparture()
        for slot in slots.indices where slots[slot].isCancelled && slots[slot].state == .flying {
            transfers?.cancel(UInt32(slot))
        }
        startWaiting()
    }

    /// Starts what was submitted during an operation, up to the next one.
    private func startWaiting() {
        while operating == nil, !waiting.isEmpty { start(waiting.removeFirst()) }
    }

    static func status(ofOperation code: CInt) -> USBStatus {
        switch code {
        case 0: .completed
        case CInt(LIBUSB_ERROR_PIPE.rawValue), CInt(LIBUSB_ERROR_NOT_FOUND.rawValue): .stall
        case CInt(LIBUSB_ERROR_NO_DEVICE.rawValue): .noDevice
        case CInt(LIBUSB_ERROR_TIMEOUT.rawValue): .timeout
        case CInt(LIBUSB_ERROR_IO.rawValue), CInt(LIBUSB_ERROR_OTHER.rawValue): .transactionError
        default: .refused
        }
    }
}

// Results, and the end.
extension KernelDevice {
    private func end(_ slot: UInt32, _ status: USBStatus, _ byteCount: Int) {
        slots[Int(slot)].state = .free
        slots[Int(slot)].operation = nil
        slots[Int(slot)].isCancelled = false
        results.append(USBResult(slot: slot, status: status, byteCount: byteCount))
        armDelivery()
    }

    private func armDelivery() {
        guard !isArmed, let target else { return }
        isArmed = true
        loop.soon(target: target, slot: KernelDevice.deliveryMark)
    }

    private func deliver() {
        if !results.isEmpty, let client {
            var run: ContiguousArray<USBResult> = []
            swap(&run, &results)
            let batch = USBResultBatch(run)
            client.completed(batch, of: self)
            recycle(batch.takeStorage())
        }
        if !results.isEmpty { return armDelivery() }
        if flying > 0 || operating != nil { return }
        if isGone, !hasToldVanished {
            hasToldVanished = true
            // libusb no longer reads the node, which would report its error for ever.
            unwatch()
            client?.vanished(self)
        }
        if closing == .ending, results.isEmpty { giveBack() }
    }

    private func recycle(_ storage: consuming ContiguousArray<USBResult>) {
        if !results.isEmpty { return }
        storage.removeAll(keepingCapacity: true)
        results = storage
    }

    private func unwatch() {
        guard let target else { return }
        for (index, source) in sources.enumerated() {
            loop.unwatch(source.descriptor, target: target, slot: UInt32(index))
        }
        sources = []
    }

    private func giveBack() {
        guard let target else { return }
        closing = .givingBack
        unwatch()
        let handle = handle
        let isGone = isGone
        let configuration = activeConfiguration
        // They have all ended; libusb uses their handle when they are freed.
        transfers = nil
        loop.offload(
            {
                handle.giveBack(isGone: isGone, configuration: configuration)
                return 0
            },
            target: target,
            slot: KernelDevice.closeMark
        )
    }

    private func closeEnded() {
        while !results.isEmpty { deliver() }
        closing = .closed
        if let target { loop.detach(target) }
        target = nil
        client = nil
        plan = nil
        let all = closers
        closers = []
        for closed in all { closed() }
    }
}
