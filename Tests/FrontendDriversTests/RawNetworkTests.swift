// The hostile network frontend does what it is told, and only that; streams count what is wrong; cards look as libxl's do.

internal import FrontendDrivers
internal import HostIO
internal import Hypervisor
internal import SharedRing
internal import SimulatedHost
internal import SimulatedHypervisor
internal import TestSupport
internal import Testing
internal import XenWire

private let guest = guestDomain
private let path = DevicePath(kind: .vif, domain: guest, index: 0)

/// A backend in memory, and a raw frontend that is not connected.
private final class RawCard: Sendable {
    let machine: SimulatedMachine
    let backend: MemoryNetBackend
    let frontend: RawNetworkFrontend
    let serving: Task<Void, any Error>

    init() async throws {
        machine = try SimulatedMachine()
        try machine.createDomain(guest)
        let dom0 = try machine.hypervisor(for: .initial)
        backend = MemoryNetBackend(dom0, path)
        frontend = RawNetworkFrontend(try machine.hypervisor(for: guest), index: 0)
        try await SimulatedToolstack(dom0).create(SimulatedToolstack.NetworkCard(path))
        serving = Task { [backend] in try await backend.run() }
    }

    /// What the backend makes of us; nil if it still serves happily after `limit`.
    func verdict(within limit: Duration = .zero) async -> (any Error)? {
        let alarm = Task { [backend] in
            try? await Task.sleep(for: limit)
            backend.stop()
        }
        defer { alarm.cancel() }
        do { try await serving.value } catch { return error }
        return nil
    }
}

@Suite struct RawNetworkFrontends {
    @Test(arguments: [true, false])
    func aPacketOfHandMadeSlots(_ split: Bool) async throws {
        let card = try await RawCard()
        let queue = try await card.frontend.makeQueue(split: split)
        #expect((queue.transmit.port != queue.receive.port) == split)
        #expect(queue.transmit.size == 256 && queue.receive.size == 256)
        let pages = try await card.frontend.makePages(2)
        try await card.frontend.connect([queue])
        queue.receive.send([ReceiveRequest(id: 0, reference: pages.references[1]).words, WireWords(low: 1, high: 0)])
        let first = queue.transmit.send([
            RawNetworkQueue.request(pages.references[0], offset: 96, flags: .extraInfo, id: 77, size: 60),
            RawNetworkQueue.extra(.hash(nil)),
        ])
        #expect(first == 0)
        #expect(await queue.transmit.waitForResponses(upTo: 2))
        #expect(queue.answer(at: 0).id == 77 && queue.answer(at: 0).status == 0)
        #expect(queue.answer(at: 1).status == TransmitStatus.null.rawValue)
        #expect(await queue.receive.waitForResponses(upTo: 1))
        #expect(queue.received(at: 0).status == 60)
        #expect(queue.receive.bytes(at: 0) == [0, 0, 0, 0, 0, 0, 60, 0])
        #expect(card.backend.sent.map(\.fragments) == [[60]])
        #expect(await card.verdict() == nil)
    }

    @Test func slotsThatEndInTheMiddle() async throws {
        let card = try await RawCard()
        let queue = try await card.frontend.makeQueue()
        let pages = try await card.frontend.makePages(1)
        try await card.frontend.connect([queue])
        queue.transmit.send([RawNetworkQueue.request(pages.references[0], flags: .moreData, id: 0, size: 100)])
        #expect(await card.verdict(within: .seconds(5)) as? NetRingFault == .missingData)
        #expect(queue.transmit.responseProducer == 0 && card.backend.sent.isEmpty)
    }

    @Test func aProducerThatLies() async throws {
        let card = try await RawCard()
        let queue = try await card.frontend.makeQueue()
        try await card.frontend.connect([queue])
        queue.transmit.put([UInt8](repeating: 0xFF, count: 100), at: 255)
        #expect(queue.transmit.bytes(at: 255) == [UInt8](repeating: 0xFF, count: 12))
        queue.transmit.requestProducer = 1000
        #expect(await card.verdict(within: .seconds(5)) is RingFault)
    }

    @Test func keysOfSeveralQueuesAndAControlRing() async throws {
        let card = try await RawCard()
        let queues = [try await card.frontend.makeQueue(), try await card.frontend.makeQueue(split: false)]
        let control = try await card.frontend.makeControlRing()
        #expect(control.size == 128)
        try await card.frontend.connect(queues, control: control, adding: [(NetKeys.featureReceiveNotify, nil)])
        #expect(try await card.backend.key("queue-1/event-channel") == "\(queues[1].transmit.port.rawValue)")
        #expect(try await card.backend.key(NetKeys.featureReceiveNotify) == nil)
        control.send([ControlRequest(id: 9, type: .getHashFlags, 5).words])
        #expect(await control.waitForResponses(upTo: 1))
        let response = control.read(at: 0) { ControlResponse(decoding: $0) }
        #expect(response.id == 9 && response.data == 5)
        #expect(await card.verdict() == nil)
    }
}

@Suite struct NetworkStreams {
    private static let stream = NetworkStream(
        from: MACAddress(0x00, 0x16, 0x3E, 1, 2, 3),
        to: MACAddress(0x00, 0x16, 0x3E, 4, 5, 6),
        flow: 3
    )

    @Test(arguments: [62, 63, 64, 100, 1514, 9014, 65535])
    func framesAreWhatTheySay(_ count: Int) throws {
        let pages = try PrivatePages(byteCount: count)
        let frame = pages.slot(at: 0, byteCount: count)
        for blank in [false, true] {
            NetworkStreams.stream.write(77, time: 5, blank: blank, into: frame)
            let headers = PacketHeaders(parsing: frame, count: count)
            #expect(headers.fault == nil && headers.transport == .udp && headers.headerEnd == 42)
            #expect(InternetChecksum.isRight(frame, headers: headers, count: count) != blank)
            let read = try #require(NetworkStreams.stream.read(frame))
            #expect(read.number == 77 && read.time == 5 && read.isRight)
        }
        var checksum = InternetChecksum()
        checksum.add(frame, at: 14, count: 20)
        #expect(checksum.sum == 0xFFFF)
        frame.set8(frame.u8(count - 1) ^ 1, at: count - 1)
        #expect(NetworkStreams.stream.read(frame)?.isRight == (count == 62))
        let other = NetworkStream(from: NetworkStreams.stream.source, to: NetworkStreams.stream.destination)
        #expect(other.read(frame) == nil)
    }

    @Test func lossesAndWrongsAreCounted() throws {
        let pages = try PrivatePages(byteCount: 200)
        let frame = pages.slot(at: 0, byteCount: 200)
        var receiver = NetworkStream.Receiver(NetworkStreams.stream)
        for number in [0, 1, 5, 4, 5] as [UInt64] {
            NetworkStreams.stream.write(number, time: number + 1, into: frame)
            #expect(receiver.take(frame) == number + 1)
        }
        #expect(receiver.received == 5 && receiver.next == 6 && receiver.lost == 1 && receiver.late == 2)
        frame.set8(frame.u8(150) ^ 0x80, at: 150)
        #expect(receiver.take(frame) != nil)
        #expect(receiver.wrong == 1 && receiver.bytes == 1200)
        frame.set16(0xDD86, at: 12)
        #expect(receiver.take(frame) == nil)
        #expect(receiver.received == 6)
    }
}

@Suite struct NetworkCards {
    @Test func lookAsLibxlMakesThem() async throws {
        let machine = try SimulatedMachine()
        try machine.createDomain(guest)
        let dom0 = try machine.hypervisor(for: .initial)
        let toolstack = SimulatedToolstack(dom0)
        var card = SimulatedToolstack.NetworkCard(path)
        card.rate = "62500,50000"
        card.mtu = 9000
        card.trusted = false
        card.extraBackendNodes = [(NetKeys.bridge, "br7")]
        try await toolstack.create(card)
        let backend = [
            ("frontend", path.frontend), ("online", "1"), ("state", "1"), ("mac", "00:16:3e:00:00:01"),
            ("rate", "62500,50000"), ("mtu", "9000"), ("bridge", "br7"), ("handle", "0"), ("hotplug-status", ""),
        ]
        for (key, value) in backend { #expect(try await toolstack.backendKey(key, of: card) == value) }
        #expect(try await toolstack.backendKey("vlan", of: card) == nil)
        let frontend = [
            ("backend", toolstack.backend(card)), ("backend-id", "0"), ("mac", "00:16:3e:00:00:01"), ("mtu", "9000"),
            ("trusted", "0"), ("handle", "0"),
        ]
        for (key, value) in frontend { #expect(try await dom0.store.read(path.frontendKey(key)) == value) }
        try await toolstack.remove(card)
        #expect(try await toolstack.backendKey("state", of: card) == nil)
    }
}
