// Two USB controllers on one simulated worker: the one that is tried, and the bystander that must not notice.

internal import BackendCore
internal import FrontendDrivers
internal import HostIO
internal import HostUSB
internal import Hypervisor
internal import SharedRing
internal import SimulatedHost
internal import SimulatedHypervisor
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import USBBackend

/// One machine with two controllers on one data loop. The bystander has a disk at 2-1 in its port 1.
final class USBScene: DeviceScene {
    static let bystanderAddress = USBBusAddress("2-1")!

    let bed: GuestBed
    var victim: DevicePath { nodes.path }
    let usb: SimulatedUSB
    let nodes: SimulatedToolstack.USBController
    let bystanderNodes: SimulatedToolstack.USBController
    let frontend: USBFrontend
    let bystander: USBFrontend
    let loop: EventLoop

    /// - Parameters:
    ///   - keys: the toolstack's for the victim, beside the usual ones and instead of them.
    ///   - ports: what the toolstack wants in the victim's ports from the beginning.
    ///   - connects: whether the victim's usual frontend connects.
    ///   - frame: how long the bus takes for a frame.
    init(
        _ options: USBFrontendOptions = .init(),
        kind: DeviceKind = .vusb,
        keys: [(String, String)] = [],
        ports: [Int: String] = [:],
        connects: Bool = true,
        frame: Duration = .milliseconds(2),
        plugging: [(String, any SimulatedFunction)] = []
    ) async throws {
        bed = try GuestBed()
        usb = SimulatedUSB(frame: frame)
        loop = try EventLoop(name: "frontend")
        var nodes = SimulatedToolstack.USBController(DevicePath(kind: kind, domain: guestDomain, index: 0))
        (nodes.portCount, nodes.extraBackendNodes) = (4, keys)
        for (number, assignment) in ports { nodes.ports[USBPort(number)!] = assignment }
        self.nodes = nodes
        var other = SimulatedToolstack.USBController(DevicePath(kind: .vusb, domain: guestDomain, index: 2))
        other.portCount = 4
        other.ports = [USBPort(1)!: "\(USBScene.bystanderAddress)"]
        bystanderNodes = other
        frontend = USBFrontend(bed.guest, loop: loop, index: nodes.path.index, options: options)
        bystander = USBFrontend(bed.guest, loop: loop, index: other.path.index)
        let disk = SimulatedDisk(try USBScene.medium(seed: 9), vendor: 1, product: 2, serial: "BYSTANDER")
        try usb.plug(disk, at: USBScene.bystanderAddress)
        for (place, function) in plugging { try usb.plug(function, at: USBBusAddress(place)!) }
        try await bed.toolstack.create(other)
        start(other.path)
        try await bystander.connect()
        try await bystander.waitForDevice(on: USBPort(1)!)
        try await bed.toolstack.create(self.nodes)
        start(self.nodes.path)
        if connects { try await frontend.connect() }
    }

    deinit { loop.shutDown() }

    private func start(_ path: DevicePath) { workers.start(path) { USBBackend(path, $0, usb) } }

    /// A medium of 1 MiB whose bytes are those of `pattern`.
    static func medium(seed: Int) throws -> PrivatePages {
        let pages = try PrivatePages(byteCount: 1 << 20)
        pages.write(pattern(0, 1 << 20, seed: seed), at: 0)
        return pages
    }

    /// What a medium holds.
    static func pattern(_ offset: Int, _ count: Int, seed: Int) -> [UInt8] {
        (offset..<offset + count).map { UInt8(truncatingIfNeeded: ($0 >> 9) &* 31 &+ $0 &+ seed) }
    }

    // MARK: the victim

    var backend: USBBackend { get throws { try #require(workers.backend(at: nodes.path) as? USBBackend) } }

    func detail(_ name: String) async throws -> String? {
        try await backend.report().details.first { $0.name == name }?.value
    }

    /// What the toolstack writes to put a device into a port, or to empty it.
    func assign(_ assignment: String, in port: Int) async throws {
        try await writeBackendKey("port/\(port)", assignment)
    }
    /// Waits until the report says something of a port.
    func says(_ text: String, of port: Int, sourceLocation: SourceLocation = #_sourceLocation) async throws {
        let said = try await eventually { try await self.detail("port \(port)")?.contains(text) ?? false }
        let detail = try await detail("port \(port)") ?? "nothing"
        #expect(said, "\(detail)", sourceLocation: sourceLocation)
    }

    /// The worker of the victim dies between two turns.
    func kill() async throws {
        try await backend.abandon()
        await workers.end(of: nodes.path)
        await endOwners()
    }

    /// What the kernel does with the devices of a process that has ended.
    private func endOwners() async {
        let all = (try? usb.devices()) ?? []
        for facts in all where usb.owner(at: facts.address)?.contains(nodes.path.relative) ?? false {
            await usb.endOwner(at: facts.address)
        }
    }

    /// The worker of the victim is stopped in peace, for a successor.
    func retire() async throws {
        try await backend.drain()
        await workers.end(of: nodes.path)
        await endOwners()
    }

    /// A new worker for the victim, with loops of its own.
    func revive() throws {
        try workers.renew()
        start(nodes.path)
    }

    // MARK: the bystander

    /// The bystander's disk is read; then everything ends.
    func end(sourceLocation: SourceLocation = #_sourceLocation) async throws {
        try await bystanderIsServed(sourceLocation: sourceLocation)
        await workers.drain()
        await frontend.abandon()
        await bystander.abandon()
    }

    func bystanderIsServed(sourceLocation: SourceLocation = #_sourceLocation) async throws {
        let disk = try await GuestDevice(bystander, port: 1)
        try await disk.enumerate()
        let bytes = try await disk.read(block: 5, count: 16)
        let wanted = USBScene.pattern(5 * 512, 16 * 512, seed: 9)
        #expect(bytes == wanted, "the bystander", sourceLocation: sourceLocation)
    }
}
