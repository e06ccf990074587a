// The hostile USB frontend does what it is told, and only that; controllers look as libxl's do.

internal import FrontendDrivers
internal import Hypervisor
internal import SharedRing
internal import SimulatedHost
internal import SimulatedHypervisor
internal import TestSupport
internal import Testing
internal import XenWire

private let guest = guestDomain
private let port = USBPort(1)!

@Suite struct RawUSBFrontends {
    /// A backend in memory with a device, and a raw frontend that is not connected.
    private final class Stage: Sendable {
        let machine: SimulatedMachine
        let backend: MemoryUSBBackend
        let frontend: RawUSBFrontend
        let serving: Task<Void, any Error>

        init() async throws {
            machine = try SimulatedMachine()
            try machine.createDomain(guest)
            let path = DevicePath(kind: .vusb, domain: guest, index: 0)
            let dom0 = try machine.hypervisor(for: .initial)
            backend = MemoryUSBBackend(dom0, path)
            frontend = RawUSBFrontend(try machine.hypervisor(for: guest), index: 0)
            try await SimulatedToolstack(dom0).create(SimulatedToolstack.USBController(path))
            serving = Task { [backend] in try await backend.run() }
        }

        func end() async throws {
            backend.stop()
            try await serving.value
        }
    }

    private static let setup = SetupPacket(0xC0, 0x5B, length: 64)

    private func request(_ id: UInt16, _ segment: URBSegment, byteCount: UInt16? = nil) -> [UInt8] {
        RawUSBRings.request(
            id: id,
            USBPipe(port, .control, device: 0, .in),
            .control(RawUSBFrontends.setup),
            segments: [segment],
            byteCount: byteCount
        )
    }

    @Test func requestsOfHandMadeBytes() async throws {
        let stage = try await Stage()
        let rings = try await stage.frontend.makeRings()
        #expect(rings.urbs.size == 16 && rings.connections.size == 512 && rings.urbs.port == rings.connections.port)
        let pages = try await stage.frontend.makePages(1)
        try await stage.frontend.connect(rings, requests: 3)
        stage.backend.plug(MemoryLoopback(), port)
        #expect(await rings.connections.waitForResponses(upTo: 1))
        let event = rings.event(at: 0)
        #expect(event.id == 0 && event.port == port && event.speed == USBIFSpeed.high.rawValue)

        let segment = URBSegment(pages.references[0], offset: 4032, length: 64)
        #expect(await rings.perform(request(700, segment)) == URBResponse(id: 700, .okay, byteCount: 64))
        // Behind the response the request's own bytes are still there.
        #expect(Array(rings.urbs.bytes(at: 0)[16...]) == Array(request(700, segment)[16...]))
        #expect(await rings.perform(request(1, segment, byteCount: 63)) == URBResponse(id: 1, .invalid))
        let first = rings.send([request(2, segment), request(3, segment), request(4, segment, byteCount: 1)])
        #expect(first == 2)
        #expect(await rings.urbs.waitForResponses(upTo: 5))
        // In any order: what is wrong need not wait for the device.
        let answers = (2..<5).map { rings.answer(at: $0) }.sorted { $0.id < $1.id }
        #expect(answers.map(\.id) == [2, 3, 4])
        #expect(answers.map(\.status) == [.okay, .okay, .invalid])
        try await stage.end()
    }

    /// A grant that was ended, and one that may not be written: the backend of these tests gives up.
    @Test(arguments: [true, false]) func grantsThatDoNotServe(_ isGone: Bool) async throws {
        let stage = try await Stage()
        let rings = try await stage.frontend.makeRings()
        var pages: SharedGrant? = try await stage.frontend.makePages(1, access: .readOnly)
        let segment = URBSegment(pages!.references[0], offset: 0, length: 64)
        if isGone { pages = nil }
        try await stage.frontend.connect(rings)
        stage.backend.plug(MemoryLoopback(), port)
        #expect(await rings.connections.waitForResponses(upTo: 1))
        rings.send([request(0, segment)])
        await #expect(throws: HypervisorFailure.self) { try await stage.serving.value }
        withExtendedLifetime(pages) {}
    }

    /// A producer that no ring has.
    @Test func aRingThatLies() async throws {
        let stage = try await Stage()
        let rings = try await stage.frontend.makeRings()
        try await stage.frontend.connect(rings)
        rings.urbs.requestProducer = 17
        rings.urbs.notify()
        await #expect(throws: RingFault.producerOutOfRange(producer: 17, consumed: 0, size: 16)) {
            try await stage.serving.value
        }
    }
}

@Suite struct SimulatedUSBControllers {
    @Test(arguments: [(.vusb, "pv"), (.qusb, "qusb")] as [(DeviceKind, String)])
    func theirKeys(_ kind: DeviceKind, _ type: String) async throws {
        let machine = try SimulatedMachine()
        try machine.createDomain(guest)
        let dom0 = try machine.hypervisor(for: .initial)
        let toolstack = SimulatedToolstack(dom0)
        var controller = SimulatedToolstack.USBController(DevicePath(kind: kind, domain: guest, index: 2))
        controller.portCount = 3
        controller.version = .usb11
        controller.ports = [USBPort(2)!: "3-1.5"]
        try await toolstack.create(controller)
        let expected = [
            ("frontend", "/local/domain/7/device/vusb/2"), ("frontend-id", "7"), ("online", "1"), ("state", "1"),
            ("type", type), ("usb-ver", "1"), ("num-ports", "3"), ("port", ""), ("port/1", ""), ("port/2", "3-1.5"),
            ("port/3", ""), ("port/4", nil),
        ]
        for (key, value) in expected { #expect(try await toolstack.backendKey(key, of: controller) == value) }
        #expect(controller.backend == "/local/domain/0/backend/\(kind)/7/2")
        try await toolstack.plug("1-1", into: USBPort(3)!, of: controller)
        #expect(try await toolstack.backendKey("port/3", of: controller) == "1-1")
        let store = try machine.hypervisor(for: guest).store
        #expect(try await store.read("device/vusb/2/backend") == controller.backend)
        #expect(try await store.read("\(controller.backend)/num-ports") == "3", "the guest may read it")
        try await toolstack.remove(controller)
        #expect(try await toolstack.backendKey("state", of: controller) == nil)
    }
}
