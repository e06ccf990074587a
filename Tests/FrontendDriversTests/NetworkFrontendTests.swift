// The network frontend against a backend in memory: what it sends is what arrives, and comes back.

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
private let here = MACAddress(0x00, 0x16, 0x3E, 1, 2, 3)
private let there = MACAddress(0x00, 0x16, 0x3E, 4, 5, 6)

/// A guest with a network card, served.
private final class Card: Sendable {
    let machine: SimulatedMachine
    let toolstack: SimulatedToolstack
    let card: SimulatedToolstack.NetworkCard
    let backend: MemoryNetBackend
    let loop: EventLoop
    let frontend: NetworkFrontend
    private let serving: Task<Void, any Error>

    init(
        _ options: NetworkFrontendOptions = .init(),
        features: [(String, String)] = MemoryNetBackend.all
    ) async throws {
        machine = try SimulatedMachine()
        try machine.createDomain(guest)
        let path = DevicePath(kind: .vif, domain: guest, index: 0)
        let dom0 = try machine.hypervisor(for: .initial)
        toolstack = SimulatedToolstack(dom0)
        var card = SimulatedToolstack.NetworkCard(path)
        card.mac = here
        self.card = card
        backend = MemoryNetBackend(dom0, path, features: features)
        loop = try EventLoop(name: "frontend")
        frontend = NetworkFrontend(try machine.hypervisor(for: guest), loop: loop, index: 0, options: options)
        try await toolstack.create(card)
        serving = Task { [backend] in try await backend.run() }
        try await frontend.connect()
    }

    /// Stops the backend; its errors are the test's.
    func end() async throws {
        await frontend.abandon()
        backend.stop()
        try await serving.value
        loop.shutDown()
    }
}

private func frame(_ number: UInt64, _ byteCount: Int, blank: Bool = false) throws -> [UInt8] {
    let pages = try PrivatePages(byteCount: byteCount)
    let slot = pages.slot(at: 0, byteCount: byteCount)
    NetworkStream(from: here, to: there).write(number, blank: blank, into: slot)
    return (0..<byteCount).map { slot.u8($0) }
}

@Suite struct NetworkFrontendTests {
    static let shapes: [(Int, Bool, Int, Int)] = [(1, true, 256, 256), (1, false, 16, 4), (4, true, 64, 32)]

    @Test(arguments: shapes)
    func whatIsSentComesBack(queues: Int, split: Bool, receiveBuffers: Int, transmitBuffers: Int) async throws {
        var options = NetworkFrontendOptions()
        options.queueCount = queues
        options.splitEventChannels = split
        options.receiveBuffers = receiveBuffers
        options.transmitBuffers = transmitBuffers
        let card = try await Card(options)
        let connection = try #require(await card.frontend.connection)
        #expect(connection.queueCount == queues)
        #expect(connection.splitEventChannels == split)
        #expect(connection.mac == here)
        #expect(connection.segmentations == [.tcpv4, .tcpv6])
        for number in 0..<100 {
            let bytes = try frame(UInt64(number), 62 + number * 37)
            let queue = number % queues
            let status = try await card.frontend.sendAndWait(bytes, queue: queue)
            #expect(status == 0)
            let back = try #require(await card.frontend.nextPacket())
            #expect(back.bytes == bytes)
            #expect(back.queue == queue)
        }
        let statistics = await card.frontend.statistics.reduce(NetworkFrontendStatistics(), +)
        #expect(statistics.sentPackets == 100 && statistics.receivedPackets == 100)
        #expect(statistics.badPackets == 0 && statistics.wrongChecksums == 0 && statistics.misplacedResponses == 0)
        #expect(statistics.failedPackets == 0)
        try await card.end()
        #expect(card.machine.usage(of: guest)?.ports == 0)
        #expect(card.machine.usage(of: guest)?.grantedPages == 0)
    }

    @Test func theKeysOfOneQueueStandAtTheTopAndThoseOfSeveralDoNot() async throws {
        var options = NetworkFrontendOptions()
        let one = try await Card(options)
        #expect(try await one.backend.key("multi-queue-num-queues") == "1")
        #expect(try await one.backend.key("request-rx-copy") == "1")
        #expect(try await one.backend.key("feature-no-csum-offload") == nil)
        #expect(try await one.backend.key("tx-ring-ref") != nil)
        #expect(try await one.backend.key("event-channel") == nil)
        try await one.end()
        options.queueCount = 9
        options.splitEventChannels = false
        options.receives = .scatterGather
        let four = try await Card(options)
        #expect(try await four.backend.key("multi-queue-num-queues") == "4")
        #expect(try await four.backend.key("tx-ring-ref") == nil)
        #expect(try await four.backend.key("queue-3/tx-ring-ref") != nil)
        #expect(try await four.backend.key("queue-3/event-channel") != nil)
        #expect(try await four.backend.key("queue-3/event-channel-tx") == nil)
        #expect(try await four.backend.key("queue-4/event-channel") == nil)
        #expect(try await four.backend.key("feature-no-csum-offload") == "1")
        #expect(try await four.backend.key("feature-gso-tcpv4") == "0")
        try await four.end()
    }

    /// QEMU's backend offers no more than it must.
    @Test func theSmallestBackend() async throws {
        var options = NetworkFrontendOptions()
        options.queueCount = 4
        options.controlRing = true
        let card = try await Card(options, features: [("feature-rx-copy", "1"), ("feature-rx-flip", "0")])
        let connection = try #require(await card.frontend.connection)
        #expect(connection.queueCount == 1 && !connection.splitEventChannels && !connection.hasControlRing)
        #expect(try await card.backend.key("multi-queue-num-queues") == nil)
        #expect(try await card.frontend.sendAndWait(try frame(0, 1514)) == 0)
        await #expect(throws: FrontendFailure.self) { try await card.frontend.send([UInt8](repeating: 0, count: 5000)) }
        await #expect(throws: FrontendFailure.self) { try await card.frontend.control(.getHashFlags) }
        try await card.end()
    }

    @Test func largePacketsInManySlots() async throws {
        let card = try await Card()
        var layout = NetworkFrame(flags: [.checksumBlank, .dataValidated])
        let bytes = try frame(0, 65535, blank: true)
        #expect(try await card.frontend.sendAndWait(bytes, layout) == 0)
        let large = try #require(await card.frontend.nextPacket())
        #expect(large.flags.isSuperset(of: [.checksumBlank, .dataValidated]))
        #expect(large.slotCount == 16)
        // The checksum was completed on the way in.
        #expect(large.bytes == (try frame(0, 65535)))
        #expect(card.backend.sent.last?.bytes == bytes)
        #expect(card.backend.sent.last?.fragments == [UInt8](repeating: 0, count: 15).map { _ in 4096 } + [4095])

        layout = NetworkFrame()
        layout.pageOffset = 100
        layout.fragmentByteCount = 50
        #expect(try await card.frontend.sendAndWait(try frame(1, 850), layout) == 0)
        #expect(card.backend.sent.last?.fragments == [Int](repeating: 50, count: 17))
        #expect(await card.frontend.nextPacket()?.bytes == (try frame(1, 850)))
        await #expect(throws: FrontendFailure.self) { try await card.frontend.send(try frame(1, 901), layout) }
        let statistics = await card.frontend.statistics[0]
        #expect(statistics.sentSlots == 16 + 17)
        #expect(statistics.receivedBlank == 1 && statistics.wrongChecksums == 0)
        try await card.end()
    }

    @Test func segmentationGoesBothWays() async throws {
        let card = try await Card()
        let segments = Segmentation(kind: .tcpv4, size: 1448)
        let layout = NetworkFrame(flags: .checksumBlank, segmentation: segments)
        #expect(try await card.frontend.sendAndWait(try frame(0, 9000, blank: true), layout) == 0)
        #expect(card.backend.sent.last?.segmentation == segments)
        let back = try #require(await card.frontend.nextPacket())
        #expect(back.segmentation == segments)
        #expect(back.bytes == (try frame(0, 9000)))
        // The rings have moved by the extras as well.
        for number in 1..<40 {
            #expect(try await card.frontend.sendAndWait(try frame(UInt64(number), 9000, blank: true), layout) == 0)
            #expect(await card.frontend.nextPacket()?.bytes == (try frame(UInt64(number), 9000)))
        }
        let statistics = await card.frontend.statistics[0]
        #expect(statistics.receivedSegmented == 40 && statistics.misplacedResponses == 0)
        #expect(statistics.sentSlots == 160 && statistics.receivedSlots == 160)
        try await card.end()
    }

    @Test func aStreamIsCountedAndChecked() async throws {
        var options = NetworkFrontendOptions()
        options.queueCount = 2
        let card = try await Card(options)
        let streams = (0..<2).map { NetworkStream(from: here, to: there, flow: UInt8($0)) }
        let arrived = Mutex(streams.map { NetworkStream.Receiver($0) })
        await card.frontend.setReceiver { packet in
            arrived.withLock { _ = $0[packet.queue].take(packet.slot) }
        }
        for (index, stream) in streams.enumerated() {
            var number = 0
            while number < 3000 {
                let first = number
                let count = try await card.frontend.sendBurst(min(32, 3000 - first), byteCount: 200, queue: index) {
                    stream.write(UInt64(first + $0), into: $1)
                }
                number += count
                if count == 0 { try await card.frontend.waitForRoom(byteCount: 200, queue: index) }
                // The backend drops what it has no page for: do not run too far ahead.
                #expect(await eventually { arrived.withLock { $0[index].received } + 64 >= UInt64(number) })
            }
        }
        #expect(await eventually { arrived.withLock { $0.allSatisfy { $0.received == 3000 } } })
        for receiver in arrived.withLock({ $0 }) {
            #expect(receiver.lost == 0 && receiver.late == 0 && receiver.wrong == 0)
            #expect(receiver.bytes == 600_000)
        }
        try await card.end()
    }

    @Test func errorsAreTold() async throws {
        let card = try await Card()
        for status in [TransmitStatus.error, .dropped] {
            card.backend.orders.withLock { $0.status = status }
            #expect(try await card.frontend.sendAndWait(try frame(0, 9000)) == status.rawValue)
        }
        #expect(await card.frontend.statistics[0].failedPackets == 2)
        #expect(await card.frontend.lastFault == nil)
        card.backend.orders.withLock { $0.liesAboutIDs = true }
        try await card.frontend.send(try frame(0, 100))
        #expect(await eventually { await card.frontend.lastFault != nil })
        await card.frontend.abandon()
        await #expect(throws: FrontendFailure.self) { try await card.frontend.send(try frame(0, 100)) }
        try await card.end()
    }

    @Test func multicastRequestsAreAnswered() async throws {
        let card = try await Card()
        let group = MACAddress(0x33, 0x33, 0, 0, 0, 1)
        #expect(try await card.frontend.multicast(.add(group)) == 0)
        #expect(try await card.frontend.multicast(.delete(group)) == 0)
        #expect(card.backend.sent.isEmpty)
        try await card.end()
    }

    @Test func controlRequestsFindTheirAnswers() async throws {
        var options = NetworkFrontendOptions()
        options.controlRing = true
        let card = try await Card(options)
        let answer = try await card.frontend.control(.setHashFlags, 15)
        #expect(answer.type == .setHashFlags && answer.status == 0 && answer.data == 15)
        let key = try await card.frontend.control(.setHashKey, 0, 4, page: [1, 2, 3, 4])
        #expect(key.data == 0x0403_0201)
        #expect(try await card.frontend.control(.addGrantMapping).status == 1)
        try await card.frontend.setHash(types: .all, key: [UInt8](repeating: 7, count: 40), mapping: [0, 1, 2])
        try await card.end()
    }

    @Test func aBackendThatClosesIsFollowed() async throws {
        let card = try await Card()
        try await card.backend.write([("state", "5")])
        #expect(await eventually { await card.frontend.connection == nil })
        let state = try await card.frontend.bus.wait(for: [.closed], of: card.card.path.frontend)
        #expect(state == .closed)
        #expect(await card.frontend.nextPacket(within: .milliseconds(1)) == nil)
        try await card.end()
    }
}

/// Responses that Linux's netfront drops the packet for.
@Suite struct WrongReceivedPackets {
    @Test(
        arguments: [
            [(4000, [], 100)], [(0, [], -1)], [(0, [], 5000)], [(0, [], 13)], [(0, .moreData, 100)],
            [(0, .moreData, 100), (0, [], -1)], [(0, .extraInfo, 100)],
        ] as [[(UInt16, ReceiveFlags, Int16)]]
    )
    func areDropped(_ responses: [(UInt16, ReceiveFlags, Int16)]) async throws {
        let card = try await Card()
        card.backend.orders.withLock { orders in
            orders.responses = responses.enumerated().map {
                ReceiveResponse.words(id: UInt16($0), offset: $1.0, flags: $1.1, status: $1.2)
            }
        }
        #expect(await eventually { await card.frontend.statistics[0].badPackets == 1 })
        // The pages are posted again, and the next packet is right.
        #expect(try await card.frontend.sendAndWait(try frame(0, 5000)) == 0)
        #expect(await card.frontend.nextPacket()?.bytes == (try frame(0, 5000)))
        #expect(await card.frontend.lastFault == nil)
        try await card.end()
    }

    @Test(arguments: [0x06 as UInt64, 0x00, 0x0001, 0x0000_0003_0001_0001])
    func extrasThatMakeNoSense(_ word: UInt64) async throws {
        let card = try await Card()
        card.backend.orders.withLock {
            $0.responses = [
                ReceiveResponse.words(id: 0, offset: 0, flags: .extraInfo, status: 100), WireWords(low: word, high: 0),
            ]
        }
        #expect(await eventually { await card.frontend.statistics[0].badPackets == 1 })
        try await card.end()
    }

    @Test func wrongChecksumsAndPlacesAreCounted() async throws {
        let card = try await Card()
        var bytes = try frame(0, 100)
        bytes[99] ^= 1
        let data = bytes
        card.backend.orders.withLock {
            $0.data = data
            $0.responses = [ReceiveResponse.words(id: 9, offset: 0, flags: [], status: 100)]
        }
        let packet = await card.frontend.nextPacket()
        #expect(packet?.bytes == bytes)
        let statistics = await card.frontend.statistics[0]
        #expect(statistics.wrongChecksums == 1 && statistics.misplacedResponses == 1 && statistics.badPackets == 0)
        try await card.end()
    }
}
