// One netchannel2 card, and beside it a bystander on the same worker that must not notice.

internal import BackendCore
internal import FrontendDrivers
internal import HostIO
internal import HostNetwork
internal import Hypervisor
internal import NetChannel2
internal import SharedRing
internal import SimulatedHost
internal import SimulatedHypervisor
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import NetBackend

/// One machine with two netchannel2 cards. `victimPath` is the one that is tried.
final class LinkScene: DeviceScene {
    static let victimPath = DevicePath(kind: .vif2, domain: guestDomain, index: 0)
    static let bystanderPath = DevicePath(kind: .vif2, domain: guestDomain, index: 2)

    let bed: GuestBed
    var victim: DevicePath { LinkScene.victimPath }
    let wires = WireHost(vhost: NoVhost("links go by system calls"))
    let card: SimulatedToolstack.NetworkCard
    let frontend: NetChannel2Frontend
    let bystander: NetChannel2Frontend
    private let devices: NetClass
    private let loop: EventLoop
    private let stall: StallTimes

    /// - Parameters:
    ///   - keys: the toolstack's for the victim, beside the usual ones.
    ///   - connects: whether the victim's usual frontend connects.
    init(
        _ options: NetChannel2FrontendOptions = .init(),
        keys: [(String, String)] = [],
        rate: String? = nil,
        stall: StallTimes = .usual,
        connects: Bool = true
    ) async throws {
        bed = try GuestBed()
        self.stall = stall
        devices = NetClass(capabilities: NetCapabilities(maxQueues: 4), host: wires)
        loop = try EventLoop(name: "frontend")
        var card = SimulatedToolstack.NetworkCard(LinkScene.victimPath)
        card.script = nil
        card.bridge = nil
        card.rate = rate
        card.extraBackendNodes = [(NetChannel2Keys.remoteMAC, guestAddress.description)] + keys
        self.card = card
        card.path = LinkScene.bystanderPath
        card.rate = nil
        card.extraBackendNodes = []
        frontend = NetChannel2Frontend(bed.guest, loop: loop, index: LinkScene.victimPath.index, options: options)
        bystander = NetChannel2Frontend(bed.guest, loop: loop, index: LinkScene.bystanderPath.index)
        for card in [self.card, card] {
            try await bed.toolstack.create(card)
            start(card.path)
        }
        try await bystander.connect()
        if connects { try await frontend.connect() }
    }

    deinit { loop.shutDown() }

    private func start(_ path: DevicePath) {
        workers.start(path) { environment in
            NetChannel2Backend(path, environment, devices.capabilities, devices.host, stall: stall)
        }
    }

    var backend: NetChannel2Backend { get throws { try #require(workers.backend(at: victim) as? NetChannel2Backend) } }
    /// The victim's interface.
    var wire: WireDevice { get throws { try #require(wires["vif2-7.0"]) } }

    /// Waits for the next packets that the victim's frontend receives.
    func received(_ count: Int) async -> [NetChannel2Frame] {
        var frames: [NetChannel2Frame] = []
        _ = await eventually(within: .seconds(30)) {
            frames += await self.frontend.takeReceived()
            return frames.count >= count
        }
        return frames
    }

    /// The worker of the victim dies between two turns, and another one takes its place.
    func killAndRevive() async throws {
        try await backend.abandon()
        await workers.end(of: victim)
        try workers.renew()
        start(victim)
    }

    /// The bystander's packets go both ways; then everything ends.
    func end(sourceLocation: SourceLocation = #_sourceLocation) async throws {
        try await bystanderIsServed(sourceLocation: sourceLocation)
        await workers.drain()
        await frontend.abandon()
        await bystander.abandon()
    }

    func bystanderIsServed(sourceLocation: SourceLocation = #_sourceLocation) async throws {
        let wire = try #require(wires["vif2-7.2"], sourceLocation: sourceLocation)
        let (out, back) = (Frames.udp(1400), Frames.udp(9000))
        try await bystander.send(NetChannel2Frame(bytes: out))
        #expect(await wire.next()?.bytes == out, "the bystander", sourceLocation: sourceLocation)
        wire.send(WireFrame(bytes: back))
        var frames: [NetChannel2Frame] = []
        _ = await eventually {
            frames += await self.bystander.takeReceived()
            return !frames.isEmpty
        }
        #expect(frames.first?.bytes == back, "the bystander", sourceLocation: sourceLocation)
    }
}

/// A frontend without manners: rings, and nobody who minds them.
final class RawLink: Sendable, RawFrontend {
    let hypervisor: any Hypervisor
    let bus: FrontendBus
    let control: SharedGrant
    let out: SharedGrant
    let back: SharedGrant
    private let events: any EventChannels
    let port: EventChannelPort

    init(_ scene: LinkScene) throws {
        hypervisor = scene.guest
        bus = FrontendBus(store: scene.guest.store, path: "device/vif2/\(LinkScene.victimPath.index)")
        let sharing = scene.guest.sharing
        control = try sharing.share(pageCount: 1, with: .initial, access: .readWrite)
        out = try sharing.share(pageCount: 1, with: .initial, access: .readWrite)
        back = try sharing.share(pageCount: 1, with: .initial, access: .readWrite)
        events = try scene.guest.openEventChannels()
        port = try events.allocate(for: .initial)
    }

    var keys: [(String, String?)] {
        [
            (NetChannel2Keys.control, "\(control.references[0].rawValue)"),
            (NetChannel2Keys.producerOrder, "0"), (NetChannel2Keys.consumerOrder, "0"),
            (NetChannel2Keys.producerPage(0), "\(out.references[0].rawValue)"),
            (NetChannel2Keys.consumerPage(0), "\(back.references[0].rawValue)"),
            (BusKeys.eventChannel, "\(port.rawValue)"),
        ]
    }

    /// Publishes the keys, with some of them changed (nil: left out), and goes to 3.
    func publish(_ changes: [String: String?] = [:]) async throws {
        let backend = try await bus.backend().path
        _ = try await bus.wait(for: [.initWait], of: backend)
        var all = keys.filter { changes[$0.0] == nil }
        for (key, value) in changes { all.append((key, value)) }
        try await bus.publish(all)
        try await bus.publish(.initialised)
    }

    /// Waits for the backend. It stays at 3 itself: a 4 that is seen only after the link broke asks for another one.
    func isConnected() async throws {
        _ = try await bus.wait(for: [.connected], of: try await bus.backend().path)
    }

    /// Writes 64-bit words into the ring at the place of the index 8 × `at`, and publishes `produced` words.
    func put(_ words: [UInt64], at index: Int = 0, produced: Int? = nil) {
        for (number, word) in words.enumerated() {
            let offset = 8 * (index + number) & 4095
            out.pages.storeRelease(UInt32(truncatingIfNeeded: word), at: offset)
            out.pages.storeRelease(UInt32(truncatingIfNeeded: word >> 32), at: offset + 4)
        }
        control.pages.storeRelease(
            UInt32(truncatingIfNeeded: 8 * (produced ?? index + words.count)),
            at: NetChannel2Layout.producer(.frontend)
        )
        events.notify(port)
    }
}
