// Devices enter and leave ports: as the toolstack assigns them, as they are plugged in and out, as a predecessor had
// them.

internal import BackendCore
internal import HostIO
internal import HostUSB
internal import SharedRing
internal import XenWire

extension USBQueue {
    /// Starts managing the ports.
    /// - Parameter assignments: one for each port, as the toolstack wrote it; empty: none.
    func start(_ assignments: [String]) {
        guard !isStarted else { return assign(assignments) }
        isStarted = true
        target = facts.data.loop.attach(self)
        do throws(HostFailure) {
            watch = try facts.host.watch(on: facts.data.loop) { [weak self] in
                self?.assumeIsolated { $0.busChanged() }
            }
        } catch {
            log.failure("cannot watch the host's buses: \(error)")
        }
        assign(assignments)
    }

    /// Returns all devices to the host, and waits until it has them.
    func stop() async {
        guard isStarted else { return }
        endWatching()
        for port in ports {
            _ = port.assign("")
            giveBack(port)
        }
        await withCheckedContinuation { continuation in
            if ports.contains(where: \.isBusy) { left = continuation } else { continuation.resume() }
        }
    }

    /// Stops, and leaves the devices as they are: the host's drivers must not bind them before the successor does.
    func leaveDevices() {
        endWatching()
        for port in ports { port.lose() }
    }

    private func endWatching() {
        isStarted = false
        watch?.end()
        watch = nil
        if let target { facts.data.loop.detach(target) }
        target = nil
    }

    /// Accepts the toolstack's assignments, one for each port.
    func assign(_ assignments: [String]) {
        guard isStarted else { return }
        for (port, assignment) in zip(ports, assignments) where port.assignment != assignment {
            if !port.assign(assignment) { giveBack(port) }
            if let refusal = port.refusal { log.failure("port \(port.port): \(refusal)") }
            if port.rule == nil { forget(port) }
            seek(port)
        }
        completionTurn()
    }

    // MARK: coming

    /// Something was plugged in or out.
    private func busChanged() {
        for port in ports { seek(port) }
    }

    /// Looks for a device for the port, unless it has one or needs none.
    private func seek(_ port: RootPort) {
        guard isStarted, port.rule != nil, port.device == nil, !port.isLeaving else { return }
        if port.isSeeking {
            port.seeksAgain = true
            return
        }
        port.isSeeking = true
        let index = port.port.index
        Task(executorPreference: facts.data.loop) { await self.find(index) }
    }

    func seekAgain(_ index: Int) {
        if ports.indices.contains(index) { seek(ports[index]) }
    }

    private func find(_ index: Int) async {
        let port = ports[index]
        repeat {
            port.seeksAgain = false
            guard isStarted, let rule = port.rule, port.device == nil, !port.isLeaving else { break }
            let search = USBSearch(
                rule: rule,
                first: port.memory?.identity,
                unfit: port.unfit,
                owner: facts.owner(port.port)
            )
            let (host, loop) = (facts.host, facts.data.loop)
            let result = await loop.blocking { search.run(host, loop) }
            found(result, rule, port)
        } while port.seeksAgain
        port.isSeeking = false
        lookWhetherAllLeft()
        completionTurn()
    }

    private func found(_ result: Result<any OpenUSBDevice, HostFailure>, _ rule: USBDeviceRule, _ port: RootPort) {
        switch result {
        case .success(let device):
            guard isStarted, port.rule == rule, port.device == nil else {
                port.isLeaving = true
                giveBack(device, port)
                return
            }
            admit(device, port)
        case .failure(let failure):
            if isStarted, port.rule == rule { missed(failure, port) } else { port.seeksAgain = true }
        }
    }

    /// No device: it may be plugged in later, or released by somebody else.
    private func missed(_ failure: HostFailure, _ port: RootPort) {
        if failure.kind == .notFound {
            // Whether named by its place or by a rule, its absence is no failure.
            port.refusal = nil
            // The device that a predecessor had is gone.
            if port.memory != nil { forget(port) }
            return
        }
        // The matching devices cannot be had, and the reason was logged.
        if failure.kind == .invalid, port.refusal != nil { return }
        port.refusal = failure.text
        // The first attempts may fail until a dead predecessor's hold has ended, which is not worth a line.
        if port.memory == nil, failure.kind != .busy || port.pause > .milliseconds(200) {
            log.failure("port \(port.port): \(failure.text)")
        }
        guard failure.kind == .busy || failure.kind == .host, let target else { return }
        facts.data.loop.after(port.pause, target: target, slot: Timer.seek &+ UInt32(port.port.index))
        port.pause = min(port.pause * 2, .seconds(8))
    }

    /// A device was acquired; whether the guest can have it depends on device and controller.
    private func admit(_ device: any OpenUSBDevice, _ port: RootPort) {
        do throws(USBRefusal) {
            let capabilities = try USBCapabilities(device.facts, device.descriptors, version: facts.shape.version)
            do throws(HostFailure) {
                let plan = USBTransferPlan(
                    slots: USBWire.urbSlots + 1,
                    packets: USBWire.maxPackets,
                    pages: buffers.pages
                )
                try device.begin(plan, client: self)
            } catch {
                throw USBRefusal(error.text)
            }
            port.take(device, capabilities)
        } catch {
            if port.unfit.count >= 64 { port.unfit = [] }
            port.unfit.insert(USBPortMemory.identity(of: device.facts))
            port.refusal = "\(device.facts.address): \(error.text)"
            log.failure("port \(port.port): \(device.facts): \(error.text)")
            // Another device may match the same rule.
            port.isLeaving = true
            giveBack(device, port)
            if port.memory != nil { forget(port) }
            return
        }
        log.forget()
        rings?.isMemoryStale = true
        if let memory = port.memory {
            port.memory = nil
            readopt(port, memory)
        } else if let capabilities = port.capabilities {
            rings?.events.plug(port.port, capabilities.speed)
            rings?.metrics.connects &+= 1
        }
    }

    // MARK: going

    /// The port is to be empty, or to have another device. The guest is told at once.
    private func giveBack(_ port: RootPort) {
        guard let device = port.device else { return }
        empty(port)
        port.isLeaving = true
        giveBack(device, port)
    }

    private func giveBack(_ device: any OpenUSBDevice, _ port: RootPort) {
        let (loop, index) = (facts.data.loop, port.port.index)
        device.close { [weak self] in
            precondition(loop.isOnLoop)
            self?.assumeIsolated { $0.leftPort(index) }
        }
    }

    private func leftPort(_ index: Int) {
        ports[index].isLeaving = false
        seek(ports[index])
        lookWhetherAllLeft()
    }

    private func lookWhetherAllLeft() {
        guard let left, !ports.contains(where: \.isBusy) else { return }
        self.left = nil
        left.resume()
    }

    /// The port has no device any more.
    private func empty(_ port: RootPort) {
        port.lose()
        rings?.dropParked(port.port)
        rings?.events.unplug(port.port)
        rings?.metrics.disconnects &+= 1
        rings?.isMemoryStale = true
    }

    // MARK: a predecessor's devices

    /// A predecessor's port: what the frontend was told stays valid if the same device is there, or comes back.
    func readopt(_ port: RootPort, _ memory: USBPortMemory) {
        if memory.told == .none {
            if let capabilities = port.capabilities { rings?.events.plug(port.port, capabilities.speed) }
            return
        }
        guard let device = port.device, let capabilities = port.capabilities else {
            port.memory = memory
            if port.rule == nil { forget(port) }
            return
        }
        guard USBPortMemory.identity(of: device.facts) == memory.identity, capabilities.speed == memory.told else {
            rings?.dropParked(port.port)
            rings?.events.plug(port.port, capabilities.speed)
            return
        }
        if port.restore(memory), let first = port.operations.first {
            device.perform(first, slot: USBQueue.operationSlot)
        }
    }

    /// The frontend's device is gone.
    private func forget(_ port: RootPort) {
        guard port.memory != nil else { return }
        port.memory = nil
        empty(port)
    }

    func giveUpReturning() {
        for port in ports where port.memory != nil { forget(port) }
        completionTurn()
    }
}

// Results of devices, on the loop.
extension USBQueue: USBDeviceClient {
    nonisolated func completed(_ results: borrowing USBResultBatch, of device: any OpenUSBDevice) {
        // The batch cannot enter the closure; its items are plain values on the stack of this call.
        assumeIsolated { $0.transfersEnded(results, device) }
    }

    nonisolated func vanished(_ device: any OpenUSBDevice) { assumeIsolated { $0.unplugged(device) } }

    private func transfersEnded(_ results: borrowing USBResultBatch, _ device: any OpenUSBDevice) {
        for position in 0..<results.count {
            let result = results[position]
            if result.slot == USBQueue.operationSlot {
                operationEnded(result.status, device)
            } else {
                rings?.transferEnded(result, of: device)
            }
        }
        completionTurn()
    }

    private func operationEnded(_ status: USBStatus, _ device: any OpenUSBDevice) {
        guard let port = ports.first(where: { $0.device === device }), !port.operations.isEmpty else { return }
        let operation = port.operations.removeFirst()
        if status != .completed, status != .noDevice {
            log.failure("port \(port.port): \(device.facts): \(operation) ended with '\(status)'")
        }
        if let next = port.operations.first { device.perform(next, slot: USBQueue.operationSlot) }
    }

    /// Surprise removal: the guest is told at once, and the port is free for the next device.
    private func unplugged(_ device: any OpenUSBDevice) {
        guard let port = ports.first(where: { $0.device === device }) else { return device.close {} }
        giveBack(port)
        completionTurn()
    }
}
