// Two network cards on one simulated worker: the one that is tried, and the bystander that must not notice.

internal import BackendCore
internal import FrontendDrivers
internal import HostIO
internal import HostNetwork
internal import Hypervisor
internal import SharedRing
internal import SimulatedHost
internal import SimulatedHypervisor
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import NetBackend

let guestAddress = MACAddress(0x00, 0x16, 0x3E, 0, 0, 1)
let otherAddress = MACAddress(0x00, 0x16, 0x3E, 0, 0, 2)
let hostAddress = MACAddress(0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF)

/// One machine with two cards, on one data loop as far as their first queues go.
final class NetScene: DeviceScene {
    static let victimPath = DevicePath(kind: .vif, domain: guestDomain, index: 0)
    static let bystanderPath = DevicePath(kind: .vif, domain: guestDomain, index: 2)
    /// Pages of the bystander that are mapped.
    static let bystanderRings = 2

    let bed: GuestBed
    var victim: DevicePath { NetScene.victimPath }
    /// The kernel that carries packets, where the test is run so.
    let vhost = SimulatedVhost()
    let wires: WireHost
    let card: SimulatedToolstack.NetworkCard
    let frontend: NetworkFrontend
    let bystander: NetworkFrontend
    let capabilities: NetCapabilities
    private let loop: EventLoop
    private let stall: StallTimes

    /// - Parameters:
    ///   - rate: the victim's.
    ///   - keys: the toolstack's for the victim, beside the usual ones.
    ///   - refusal: why the host cannot make the victim's interface.
    ///   - connects: whether the victim's usual frontend connects.
    init(
        _ options: NetworkFrontendOptions = .init(),
        rate: String? = nil,
        keys: [(String, String)] = [],
        stall: StallTimes = .usual,
        refusal: HostFailure? = nil,
        connects: Bool = true
    ) async throws {
        let none = NoVhost("the kernel has no vhost-net")
        wires = WireHost(vhost: HostWay.current == .vhost ? vhost : none)
        wires.refuse("vif7.0", refusal)
        bed = try GuestBed()
        capabilities = NetCapabilities(maxQueues: 4)
        self.stall = stall
        loop = try EventLoop(name: "frontend")
        var card = SimulatedToolstack.NetworkCard(NetScene.victimPath)
        card.script = nil
        card.mac = guestAddress
        card.rate = rate
        card.extraBackendNodes = keys
        self.card = card
        card.path = NetScene.bystanderPath
        card.mac = otherAddress
        card.rate = nil
        card.extraBackendNodes = []
        frontend = NetworkFrontend(bed.guest, loop: loop, index: NetScene.victimPath.index, options: options)
        bystander = NetworkFrontend(bed.guest, loop: loop, index: NetScene.bystanderPath.index)
        for card in [self.card, card] {
            try await bed.toolstack.create(card)
            start(card.path)
        }
        try await bystander.connect()
        if connects { try await frontend.connect() }
    }

    deinit { loop.shutDown() }

    private func start(_ path: DevicePath) {
        workers.start(path) { NetBackend(path, $0, capabilities, wires, stall: stall) }
    }

    // MARK: the victim

    var backend: NetBackend { get throws { try #require(workers.backend(at: NetScene.victimPath) as? NetBackend) } }
    /// Its interface.
    var wire: WireDevice { get throws { try #require(wires["vif7.0"]) } }

    /// The worker of the victim dies between two turns.
    func kill() async throws {
        try await backend.abandon()
        await workers.end(of: NetScene.victimPath)
    }

    /// The toolstack attaches the victim's card once more after its removal; the same worker serves it.
    func reattach() async throws {
        await workers.end(of: NetScene.victimPath)
        try await toolstack.create(card)
        start(NetScene.victimPath)
    }

    /// A new worker for the victim, with loops of its own.
    func revive() throws {
        try workers.renew()
        start(NetScene.victimPath)
    }

    // MARK: the bystander

    /// The bystander's packets go both ways; then everything ends.
    func end(sourceLocation: SourceLocation = #_sourceLocation) async throws {
        try await bystanderIsServed(sourceLocation: sourceLocation)
        await workers.drain()
        await frontend.abandon()
        await bystander.abandon()
    }

    func bystanderIsServed(sourceLocation: SourceLocation = #_sourceLocation) async throws {
        let wire = try #require(wires["vif7.2"], sourceLocation: sourceLocation)
        let (out, back) = (Frames.udp(1400), Frames.udp(9000))
        let status = try await bystander.sendAndWait(out)
        #expect(status == 0, "the bystander", sourceLocation: sourceLocation)
        #expect(await wire.next()?.bytes == out, "the bystander", sourceLocation: sourceLocation)
        wire.send(WireFrame(bytes: back))
        let received = await bystander.nextPacket()
        #expect(received?.bytes == back, "the bystander", sourceLocation: sourceLocation)
    }
}
