// Endpoints of a simulated device: queues of transfers, and turns in which those move that can.

internal import HostIO
internal import HostUSB

/// What a simulated device keeps of a slot.
struct SimulatedSlot {
    var isFree = true
    var transfer = USBTransfer(.control, endpoint: 0, offset: 0, byteCount: 0)
    /// The endpoint in whose queue it is, or -1.
    var endpoint = -1
    /// The slot behind it there, or -1.
    var next = -1
    var hasAskedForFault = false
    var fault: SimulatedFault?
    /// Waits for a timer, or for its cancellation.
    var isHeld = false
    /// The number of its first isochronous interval.
    var firstFrame: UInt64 = 0
}

/// What a simulated device keeps of an endpoint.
struct SimulatedEndpoint {
    /// Nil: the active settings do not have it.
    var kind: USBTransfer.Kind?
    var isHalted = false
    var first = -1
    var last = -1
    /// Nanoseconds of an isochronous interval.
    var interval: UInt64 = 1
    /// When interval 0 began; nil before the first transfer.
    var epoch: UInt64?
    var nextFrame: UInt64 = 0
    var isTimed = false
}

extension SimulatedUSBDevice {
    private static func index(_ address: UInt8) -> Int { Int(address & 15) + (address & 0x80 != 0 ? 16 : 0) }

    private static func address(_ index: Int) -> UInt8 { UInt8(index & 15) | (index >= 16 ? 0x80 : 0) }

    /// Sets up the endpoints of the active alternate settings. What waited on one that is gone is cancelled, as the
    /// kernel does it.
    func configure() {
        var kinds: [Int: ConfigurationDescriptor.Endpoint] = [:]
        let settings = activeConfiguration.flatMap { descriptors.configuration($0) }?.settings ?? []
        for setting in settings where setting.alternate == alternates[setting.interface] ?? 0 {
            for endpoint in setting.endpoints { kinds[SimulatedUSBDevice.index(endpoint.address)] = endpoint }
        }
        for index in endpoints.indices where index & 15 != 0 {
            restart(index)
            endpoints[index].kind = kinds[index]?.kind
            // 2^(bInterval − 1) frames, from high speed on microframes (USB 2.0, 9.6.6).
            let unit = facts.speed == .high || facts.speed == .super ? frame / 8 : frame
            endpoints[index].interval = max(1, unit << UInt64(min(15, max(1, kinds[index]?.interval ?? 1) - 1)))
        }
        endpoints[0].kind = .control
    }

    private func restart(_ index: Int) {
        while endpoints[index].first >= 0 { finish(endpoints[index].first, .cancelled) }
        endpoints[index].isHalted = false
        endpoints[index].epoch = nil
    }

    /// The endpoint that a transfer is for, if there is one of its kind.
    func endpoint(of transfer: USBTransfer) -> Int? {
        if transfer.kind == .control {
            return transfer.endpoint & 0x7f == 0 && transfer.byteCount >= 8 ? 0 : nil
        }
        let index = SimulatedUSBDevice.index(transfer.endpoint)
        guard index & 15 != 0, transfer.endpoint & 0x70 == 0, endpoints[index].kind == transfer.kind else { return nil }
        return transfer.kind != .isochronous || transfer.packetCount > 0 ? index : nil
    }

    func enqueue(_ index: Int, on endpoint: Int) {
        slots[index].endpoint = endpoint
        if endpoints[endpoint].last >= 0 { slots[endpoints[endpoint].last].next = index }
        if endpoints[endpoint].kind == .isochronous { schedule(index, on: endpoint) }
        if endpoints[endpoint].first < 0 { endpoints[endpoint].first = index }
        endpoints[endpoint].last = index
    }

    func dequeue(_ index: Int) {
        let endpoint = slots[index].endpoint
        if endpoint < 0 { return }
        var before = -1
        var current = endpoints[endpoint].first
        while current >= 0 && current != index {
            before = current
            current = slots[current].next
        }
        let next = slots[index].next
        if before < 0 { endpoints[endpoint].first = next } else { slots[before].next = next }
        if endpoints[endpoint].last == index { endpoints[endpoint].last = before }
        slots[index].endpoint = -1
        slots[index].next = -1
    }

    /// Runs every transfer that can proceed.
    func turn() {
        var hasMoved = true
        while hasMoved && !isGone {
            hasMoved = false
            for index in endpoints.indices where endpoints[index].first >= 0 {
                let isServed = endpoints[index].kind == .isochronous ? serveFrames(index) : serve(index)
                if isServed { hasMoved = true }
            }
        }
    }

    /// Asks for the first transfer of an endpoint.
    /// - Returns: whether it came to its end.
    private func serve(_ endpoint: Int) -> Bool {
        let index = endpoints[endpoint].first
        if slots[index].isHeld { return false }
        if endpoints[endpoint].isHalted {
            finish(index, .stall)
            return true
        }
        let address = SimulatedUSBDevice.address(endpoint)
        if !slots[index].hasAskedForFault {
            slots[index].hasAskedForFault = true
            slots[index].fault = faults.take(address)
        }
        let transfer = slots[index].transfer
        switch slots[index].fault {
        case .stall:
            endpoints[endpoint].isHalted = endpoint != 0
            finish(index, .stall)
        case .babble: finish(index, .overflow)
        case .transactionError: finish(index, .transactionError)
        case .silence:
            slots[index].isHeld = true
            return false
        case .delay(let delay):
            slots[index].fault = nil
            slots[index].isHeld = true
            hold(index, for: delay)
            return false
        case .vanish:
            _ = answer(address, transfer, count: transfer.byteCount / 2)
            pull()
        case .excess, nil: return end(index, endpoint, answer(address, transfer, count: transfer.byteCount))
        }
        return true
    }

    /// Ends a transfer as the function answered.
    private func end(_ index: Int, _ endpoint: Int, _ answer: SimulatedAnswer?) -> Bool {
        let transfer = slots[index].transfer
        switch answer {
        case .wait: return false
        case .stall:
            endpoints[endpoint].isHalted = endpoint != 0
            finish(index, .stall)
        case .moved(let count):
            if slots[index].fault == .excess {
                finish(index, .overflow, count)
            } else {
                finish(index, isShort(transfer, count) ? .short : .completed, count)
            }
        case .overflowed: finish(index, .overflow, transfer.byteCount)
        case nil: finish(index, .refused)
        }
        return true
    }

    private func isShort(_ transfer: USBTransfer, _ count: Int) -> Bool {
        if !transfer.refusesShort { return false }
        if transfer.kind != .control { return transfer.endpoint & 0x80 != 0 && count < transfer.byteCount }
        let setup = setup(of: transfer)
        return setup.isToHost && count < Int(setup.length)
    }

    /// The function's answer to a transfer, or to the first bytes of one; nil if it should never have come.
    private func answer(_ address: UInt8, _ transfer: USBTransfer, count: Int) -> SimulatedAnswer? {
        guard let pages = plan?.pages else { return nil }
        if transfer.kind == .control { return controlAnswer(transfer, pages) }
        let data = SimulatedBytes(pages: pages, offset: transfer.offset, count: count)
        return function.transfer(endpoint: address, data)
    }
}

// Isochronous endpoints: one packet for each interval.
extension SimulatedUSBDevice {
    /// Gives a transfer the intervals behind those of the one before it, or those from now on.
    private func schedule(_ index: Int, on endpoint: Int) {
        let now = SimulatedUSBDevice.now
        let epoch = endpoints[endpoint].epoch ?? now
        endpoints[endpoint].epoch = epoch
        let soonest = (now &- epoch) / endpoints[endpoint].interval &+ 1
        slots[index].firstFrame = max(soonest, endpoints[endpoint].nextFrame)
        if endpoints[endpoint].first >= 0 { slots[index].firstFrame = endpoints[endpoint].nextFrame }
        endpoints[endpoint].nextFrame = slots[index].firstFrame &+ UInt64(slots[index].transfer.packetCount)
    }

    /// Ends the first transfer of an endpoint if its last interval is over.
    private func serveFrames(_ endpoint: Int) -> Bool {
        let index = endpoints[endpoint].first
        let transfer = slots[index].transfer
        guard let epoch = endpoints[endpoint].epoch, let pages = plan?.pages else { return false }
        let last = slots[index].firstFrame &+ UInt64(transfer.packetCount)
        let end = epoch &+ last &* endpoints[endpoint].interval
        let now = SimulatedUSBDevice.now
        if now < end {
            if !endpoints[endpoint].isTimed { time(endpoint: endpoint, nanoseconds: end &- now) }
            return false
        }
        let fault = faults.take(SimulatedUSBDevice.address(endpoint))
        if fault == .vanish {
            pull()
            return true
        }
        var offset = transfer.offset
        var total = 0
        for number in 0..<transfer.packetCount {
            var packet = packets[UInt32(index), number]
            let room = min(Int(packet.byteCount), transfer.offset &+ transfer.byteCount &- offset)
            let data = SimulatedBytes(pages: pages, offset: offset, count: max(0, room))
            let frame = slots[index].firstFrame &+ UInt64(number)
            let moved = function.packet(endpoint: transfer.endpoint, frame: frame, data)
            packet.status = SimulatedUSBDevice.status(of: fault)
            packet.actualByteCount = packet.status == .completed ? UInt32(clamping: moved) : 0
            packets[UInt32(index), number] = packet
            total &+= Int(packet.actualByteCount)
            offset &+= max(0, room)
        }
        finish(index, .completed, total)
        return true
    }

    private static func status(of fault: SimulatedFault?) -> USBStatus {
        switch fault {
        case .stall: .stall
        case .babble, .excess: .overflow
        case .transactionError, .silence: .transactionError
        case .vanish, .delay, nil: .completed
        }
    }
}

// The host's requests.
extension SimulatedUSBDevice {
    func carryOut(_ operation: USBOperation) -> USBStatus {
        switch operation {
        case .setConfiguration(let value):
            guard value == 0 || descriptors.configuration(value) != nil else { return .stall }
            activeConfiguration = value == 0 ? nil : value
            alternates = [:]
            function.restart(endpoint: nil)
        case .setInterface(let interface, let alternate):
            let settings = activeConfiguration.flatMap { descriptors.configuration($0) }?.settings ?? []
            guard settings.contains(where: { $0.interface == interface && $0.alternate == alternate }) else {
                return .stall
            }
            alternates[interface] = alternate
        case .clearHalt(let endpoint):
            let index = SimulatedUSBDevice.index(endpoint)
            guard index & 15 != 0, endpoints[index].kind != nil else { return .refused }
            endpoints[index].isHalted = false
            function.restart(endpoint: endpoint)
            return .completed
        case .reset:
            alternates = [:]
            function.restart(endpoint: nil)
            while endpoints[0].first >= 0 { finish(endpoints[0].first, .cancelled) }
        }
        configure()
        return .completed
    }
}
