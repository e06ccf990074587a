// The USB frontend against a backend in memory: devices come and go, and every byte arrives once.

internal import FrontendDrivers
internal import HostIO
internal import Hypervisor
internal import SharedRing
internal import SimulatedHost
internal import SimulatedHypervisor
internal import Synchronization
internal import TestSupport
internal import Testing
internal import XenWire

private let guest = guestDomain
private let first = USBPort(1)!
private let second = USBPort(2)!

/// A guest with a USB controller, served.
private final class Controller: Sendable {
    let machine: SimulatedMachine
    let toolstack: SimulatedToolstack
    let controller: SimulatedToolstack.USBController
    let backend: MemoryUSBBackend
    let loop: EventLoop
    let frontend: USBFrontend
    private let serving: Task<Void, any Error>

    init(_ options: USBFrontendOptions = .init(), portCount: Int = 8, version: USBVersion = .usb20) async throws {
        machine = try SimulatedMachine()
        try machine.createDomain(guest)
        let path = DevicePath(kind: .vusb, domain: guest, index: 0)
        let dom0 = try machine.hypervisor(for: .initial)
        toolstack = SimulatedToolstack(dom0)
        var controller = SimulatedToolstack.USBController(path)
        controller.portCount = portCount
        controller.version = version
        self.controller = controller
        backend = MemoryUSBBackend(dom0, path)
        loop = try EventLoop(name: "frontend")
        frontend = USBFrontend(try machine.hypervisor(for: guest), loop: loop, index: 0, options: options)
        try await toolstack.create(controller)
        serving = Task { [backend] in try await backend.run() }
        try await frontend.connect()
    }

    /// Plugs in and enumerates.
    func device(_ device: any MemoryUSBDevice, _ port: USBPort = first) async throws -> USBGuestDevice {
        backend.plug(device, port)
        return try await frontend.enumerate(port)
    }

    /// Stops the backend; its errors are the test's.
    func end() async throws {
        await frontend.abandon()
        backend.stop()
        try await serving.value
        loop.shutDown()
    }
}

private func pattern(_ count: Int, seed: Int = 0) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: ($0 &* 7) ^ ($0 >> 9) &+ seed) }
}

/// As xen-hcd on its own pages, and with fresh ones and descriptors on two pages.
private let manners: [USBFrontendOptions] = {
    var other = USBFrontendOptions()
    other.grantsEachURB = true
    other.frameOffset = 4088
    other.protocol = "x86_32-abi"
    return [USBFrontendOptions(), other]
}()

@Suite struct USBFrontendTests {
    @Test(arguments: manners) func aStickIsWrittenAndRead(_ options: USBFrontendOptions) async throws {
        let controller = try await Controller(options)
        let connection = try #require(await controller.frontend.connection)
        #expect(connection == USBFrontendConnection(version: .usb20, portCount: 8, backend: .initial))
        #expect(try await controller.backend.key(USBKeys.protocol) == options.protocol)
        let device = try await controller.device(MemoryStick(blocks: 1024))
        #expect(device.speed == .high && device.address == 1 && device.descriptor.vendor == 0x0781)
        let disk = try USBMassStorage(device)
        let names = try await disk.inquiry()
        #expect(names.vendor == "Memory" && names.product == "Stick")
        let capacity = try await disk.capacity()
        #expect(capacity.blockCount == 1024 && capacity.blockSize == 512)
        let data = pattern(300 * 512)
        try await disk.write(block: 100, data)
        try await disk.flush()
        #expect(try await disk.read(block: 100, count: 300) == data)
        #expect(try await disk.read(block: 99, count: 1) == [UInt8](repeating: 0, count: 512))
        // 300 blocks are two URBs of 64 KiB, whose buffer_length says 0, and a shorter one.
        #expect(controller.backend.requests.contains { $0.byteCount == 65536 && $0.segmentCount == 16 })
        let statistics = try #require(await controller.frontend.statistics)
        #expect(statistics.submitted == statistics.answered && statistics.failed == 0)
        try await controller.end()
    }

    @Test func aCommandThatTheDiskDoesNotKnowStalls() async throws {
        let controller = try await Controller()
        let disk = try USBMassStorage(try await controller.device(MemoryStick(blocks: 8)))
        await #expect(throws: USBMassStorage.Failure.command(operation: 0x28, status: 1)) {
            _ = try await disk.read(block: 8, count: 1)
        }
        #expect(try await disk.capacity().blockCount == 8)
        try await controller.end()
    }

    /// The first URB of three is short: the others are taken back, and what comes next is not lost in them.
    @Test func aShortURBEndsTheTransfer() async throws {
        let controller = try await Controller()
        let disk = try USBMassStorage(try await controller.device(MemoryStick(blocks: 512, short: 300 * 512 - 1000)))
        await #expect(throws: USBMassStorage.Failure.short(operation: 0x28, 1000)) {
            _ = try await disk.read(block: 0, count: 300)
        }
        #expect(try await disk.capacity().blockCount == 512)
        let requests = controller.backend.requests
        let unlinks = requests.count { if case .unlink = $0.kind { true } else { false } }
        #expect(unlinks == 2)
        #expect(requests.count { $0.shortNotOK } == 2)
        try await controller.end()
    }

    @Test func keysArePressed() async throws {
        let controller = try await Controller(portCount: 2, version: .usb11)
        let keys = MemoryKeyboard()
        let device = try await controller.device(keys, second)
        #expect(device.speed == .low)
        let keyboard = try #require(USBKeyboard(device))
        async let press = keyboard.nextPress()
        keys.press(0x04, modifiers: 2)
        let pressed = try await press
        #expect(pressed == USBKeyboard.Report(modifiers: 2, keys: [4]))
        #expect(try await keyboard.nextReport() == USBKeyboard.Report(modifiers: 0, keys: []))
        try await keyboard.setLights(1)
        #expect(keys.lights.withLock { $0 } == 1)
        try await controller.end()
    }

    @Test(arguments: manners) func soundWithoutAndWithGaps(_ options: USBFrontendOptions) async throws {
        let controller = try await Controller(options)
        for losesOneOf in [Int.max, 10] {
            let sound = MemorySound(losesOneOf: losesOneOf)
            let device = try await controller.device(sound)
            let microphone = try #require(device.endpoint(.isochronous, .in))
            let loudspeaker = try #require(device.endpoint(.isochronous, .out))
            try await device.select(microphone.interface.number, alternate: microphone.interface.alternate)
            try await device.select(loudspeaker.interface.number, alternate: loudspeaker.interface.alternate)
            #expect(sound.selected.withLock { $0 } == [0: 1, 1: 1])
            let heard = try await USBSoundStream(device, microphone.endpoint).run(packetCount: 100)
            #expect(heard.urbs == 13 && heard.failedURBs == 0)
            if losesOneOf == .max {
                #expect(heard.packets == 104 && heard.bytes == 104 * 192 && heard.gaps == 0)
            } else {
                #expect(heard.packets == 94 && heard.failedPackets == 10 && heard.gaps == 10)
            }
            var stream = USBSoundStream(device, loudspeaker.endpoint)
            stream.packetsPerURB = 5
            let played = try await stream.run(packetCount: 50, firstSample: .max - 100)
            #expect(played.packets == 50 && played.bytes == 9600 && played.failedPackets == 0)
            #expect(sound.gaps.withLock { $0 } == 0)
        }
        try await controller.end()
    }

    @Test func aHundredAtOnce() async throws {
        let controller = try await Controller()
        let device = try await controller.device(MemoryLoopback())
        try await withThrowingTaskGroup(of: Void.self) { group in
            for number in 0..<100 as Range<UInt16> {
                group.addTask {
                    let bytes = try await device.control(SetupPacket(0xC0, 0x5B, length: number))
                    #expect(bytes == (0..<number).map { UInt8(truncatingIfNeeded: $0) })
                }
            }
            try await group.waitForAll()
        }
        try await controller.end()
    }

    @Test func buffersThatBeginAnywhere() async throws {
        let controller = try await Controller()
        let device = try await controller.device(MemoryLoopback())
        let out = try #require(device.endpoint(.bulk, .out)).endpoint
        let back = try #require(device.endpoint(.bulk, .in)).endpoint
        for (offset, count) in [(0, 0), (4095, 1), (4095, 2), (100, 10000), (1, 61440), (0, 65536)] {
            var urb = FrontURB(device.pipe(out), .bulk, byteCount: count)
            urb.pageOffset = offset
            let data = pattern(count, seed: offset)
            #expect(try await controller.frontend.perform(urb, data).response.byteCount == UInt32(count))
            urb.pipe = device.pipe(back)
            #expect(try await controller.frontend.perform(urb).bytes == data)
        }
        let tooLarge = FrontURB(device.pipe(out), .bulk, byteCount: 65537)
        await #expect(throws: FrontendFailure.self) { _ = try await controller.frontend.submit(tooLarge) }
        #expect(try await device.control(SetupPacket(0xC0, 0x5B, length: 3)) == [0, 1, 2])
        try await controller.end()
    }

    /// Both the unlink and what it takes back are answered, each once, and a place is free again for each.
    @Test func unlinks() async throws {
        let controller = try await Controller()
        let device = try await controller.device(MemoryLoopback())
        let back = try #require(device.endpoint(.bulk, .in)).endpoint
        for _ in 0..<20 {
            let urb = FrontURB(device.pipe(back), .bulk, byteCount: 512)
            let ticket = try await controller.frontend.submit(urb)
            #expect(try await controller.frontend.unlink(ticket) == .okay)
            #expect(try await controller.frontend.outcome(of: ticket).status == .unlinked)
            #expect(try await controller.frontend.unlink(ticket) == .notFound)
            #expect(try await controller.frontend.unlink(id: 15, device.pipe(back)) == .notFound)
        }
        #expect(await controller.frontend.lastFault == nil)
        #expect(await controller.frontend.statistics?.unlinks == 40)
        try await controller.end()
    }
}

@Suite struct USBFrontendPorts {
    @Test func devicesComeAndGo() async throws {
        let controller = try await Controller()
        var events = controller.frontend.portEvents.makeAsyncIterator()
        for round in 0..<3 {
            let device = try await controller.device(MemoryStick(blocks: 8), second)
            #expect(await events.next() == USBPortEvent(second, .high))
            #expect(device.address == UInt8(round + 1))
            #expect(await controller.frontend.speed(of: second) == .high)
            #expect(await controller.frontend.speed(of: first) == .none)
            controller.backend.plug(nil, second)
            #expect(try await controller.frontend.waitForDevice(on: second, present: false) == .none)
            #expect(await events.next() == USBPortEvent(second, .none))
            await #expect(throws: FrontendFailure.self) { try await device.read(.device) }
        }
        try await controller.end()
    }

    /// More events than the ring has slots: each request goes back with its event.
    @Test func twoThousandEvents() async throws {
        let controller = try await Controller()
        let keyboard = MemoryKeyboard()
        for round in 0..<1000 {
            controller.backend.plug(keyboard, first)
            controller.backend.plug(nil, first)
            guard round % 100 == 99 else { continue }
            let count = UInt64(2 * round + 2)
            #expect(await eventually { await controller.frontend.statistics?.portEvents == count })
        }
        #expect(await controller.frontend.lastFault == nil)
        try await controller.end()
    }

    @Test(arguments: [0x0309_0000, 0x0400_0000 | 0x1_0000, 0x0300_0000] as [UInt64])
    func eventsThatNoControllerUnderstands(_ event: UInt64) async throws {
        let controller = try await Controller()
        controller.backend.orders.withLock { $0.events = [WireWords(low: event, high: 0)] }
        #expect(await eventually { await controller.frontend.lastFault != nil })
        try await controller.end()
    }

    @Test(arguments: [true, false]) func answersThatNobodyAskedFor(_ twice: Bool) async throws {
        let controller = try await Controller()
        let device = try await controller.device(MemoryLoopback())
        let back = try #require(device.endpoint(.bulk, .in)).endpoint
        let held = try await controller.frontend.submit(FrontURB(device.pipe(back), .bulk, byteCount: 1))
        controller.backend.orders.withLock { $0.answersTwice = twice }
        controller.backend.orders.withLock { $0.liesAboutIDs = !twice }
        let urb = FrontURB(
            USBPipe(first, .control, device: device.address, .out),
            .control(SetupPacket(0x40, 0x5B)),
            byteCount: 0
        )
        let ticket = try await controller.frontend.submit(urb)
        #expect(await eventually { await controller.frontend.lastFault != nil })
        if twice { #expect(try await controller.frontend.outcome(of: ticket).status == .okay) }
        await controller.frontend.abandon()
        await #expect(throws: FrontendFailure.self) { try await controller.frontend.outcome(of: held) }
        try await controller.end()
    }

    /// Whoever waits is told, and nothing is left behind for the next connection.
    @Test func theEndOfAConnection() async throws {
        let controller = try await Controller()
        let device = try await controller.device(MemoryKeyboard())
        let keyboard = try #require(USBKeyboard(device))
        let waiting = (0..<20).map { _ in Task { try await keyboard.nextReport() } }
        #expect(await eventually { controller.backend.requests.count { $0.kind == .interrupt(interval: 10) } == 16 })
        try await controller.backend.write([("state", "5")])
        #expect(await eventually { await controller.frontend.connection == nil })
        for task in waiting { await #expect(throws: FrontendFailure.self) { _ = try await task.value } }
        let state = try await controller.frontend.bus.wait(for: [.closed], of: controller.controller.path.frontend)
        #expect(state == .closed)
        await #expect(throws: FrontendFailure.self) { try await keyboard.nextReport() }
        try await controller.end()
    }

    @Test(arguments: [("0", "8"), ("3", "8"), ("2", "0"), ("2", "32"), ("x", "")])
    func controllersThatNoDriverTakes(_ version: String, _ ports: String) async throws {
        let machine = try SimulatedMachine()
        try machine.createDomain(guest)
        let path = DevicePath(kind: .qusb, domain: guest, index: 3)
        let dom0 = try machine.hypervisor(for: .initial)
        var controller = SimulatedToolstack.USBController(path)
        controller.extraBackendNodes = [(USBKeys.version, version), (USBKeys.portCount, ports), ("state", "2")]
        try await SimulatedToolstack(dom0).create(controller)
        let loop = try EventLoop(name: "frontend")
        let frontend = USBFrontend(try machine.hypervisor(for: guest), loop: loop, index: 3)
        await #expect(throws: FrontendFailure.self) { try await frontend.connect() }
        loop.shutDown()
    }
}
