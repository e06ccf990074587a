// Packets both ways: every byte, and every word that is said about them.

internal import FrontendDrivers
internal import HostNetwork
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import NetBackend

extension SimulatedNetworkTests {
    @Suite struct DataTests {
        /// Sizes with the number of slots they are sent in.
        static let shapes: [(Int, Int)] = [
            (60, 1), (61, 4), (252, 18), (1514, 1), (1514, 7), (4095, 1), (4096, 2), (4097, 2), (9014, 3), (9014, 18),
            (32_768, 9), (65_000, 17), (65_535, 18), (65_535, 17),
        ]
        static let connections: [(Int, Bool)] = [(1, false), (1, true), (2, true), (2, false), (4, true)]

        @Test(arguments: connections)
        func everyByteArrives(queues: Int, split: Bool) async throws {
            var options = NetworkFrontendOptions()
            options.queueCount = queues
            options.splitEventChannels = split
            let scene = try await NetScene(options)
            let wire = try scene.wire
            #expect(wire.queueCount == queues)
            for (number, (size, slots)) in DataTests.shapes.enumerated() {
                let queue = number % queues
                let bytes = Frames.plain(size, seed: number)
                var frame = NetworkFrame()
                frame.fragmentByteCount = (size + slots - 1) / slots
                frame.pageOffset = min(2 * number + 1, 4096 - frame.fragmentByteCount)
                let status = try await scene.frontend.sendAndWait(bytes, frame, queue: queue)
                #expect(status == 0, "\(size) bytes in \(slots)")
                let out = await wire.next(queue: queue)
                #expect(out?.bytes == bytes, "\(size) bytes in \(slots)")
                #expect(out?.header.flags == [] && out?.header.segmentKind == VirtioNetHeader.Kind.none)
                wire.send(WireFrame(bytes: bytes), queue: queue)
                let back = await scene.frontend.nextPacket()
                #expect(back?.bytes == bytes && back?.queue == queue, "\(size) bytes")
                #expect(back?.slotCount == (size + 4095) / 4096)
                #expect(back?.flags == (size > 4096 ? .moreData : []))
            }
            let counted = await scene.frontend.statistics.reduce(NetworkFrontendStatistics(), +)
            #expect(counted.badPackets == 0 && counted.misplacedResponses == 0 && counted.failedPackets == 0)
            try await scene.end()
        }

        @Test(arguments: [1, 4])
        func streamsKeepTheirOrder(queues: Int) async throws {
            var options = NetworkFrontendOptions()
            options.queueCount = queues
            options.transmitBuffers = 64
            let scene = try await NetScene(options)
            let wire = try scene.wire
            let count: UInt64 = 2000
            var receivers = (0..<queues).map { NetworkStream.Receiver(Frames.stream(UInt8($0))) }
            for queue in 0..<queues {
                let stream = Frames.stream(UInt8(queue))
                var sent: UInt64 = 0
                while sent < count {
                    let start = sent
                    let size = 62 + Int(sent * 7 % 1400)
                    sent += UInt64(
                        try await scene.frontend.sendBurst(32, byteCount: size, queue: queue) {
                            stream.write(start + UInt64($0), into: $1)
                        }
                    )
                    while let frame = wire.receive(queue: queue) {
                        _ = Frames.edit(frame.bytes) { _ = receivers[queue].take($0) }
                    }
                    if sent == start { try await scene.frontend.waitForRoom(byteCount: size, queue: queue) }
                }
                _ = try await scene.frontend.sendAndWait(Frames.plain(60), queue: queue)
                // An answer says that the backend has a packet, not that the host has.
                while receivers[queue].received < count, let frame = await wire.next(queue: queue) {
                    _ = Frames.edit(frame.bytes) { _ = receivers[queue].take($0) }
                }
                let receiver = receivers[queue]
                // A burst may be larger than asked for at the end.
                #expect(receiver.received >= count && receiver.lost == 0, "queue \(queue)")
                #expect(receiver.wrong == 0 && receiver.late == 0, "queue \(queue)")
            }
            try await scene.end()
        }

        // MARK: what is said of the guest's packets

        @Test(arguments: [false, true])
        func segmentationOfTheGuestReachesTheHost(isV6: Bool) async throws {
            let scene = try await NetScene()
            let wire = try scene.wire
            let kind: Segmentation.Kind = isV6 ? .tcpv6 : .tcpv4
            var frame = NetworkFrame(flags: [.checksumBlank, .dataValidated])
            frame.segmentation = Segmentation(kind: kind, size: 1428)
            let bytes = Frames.tcp(60_001, isV6: isV6)
            var wanted = Frames.header(bytes, segmentSize: 1428)
            wanted.headerLength = 128
            #expect(try await scene.frontend.sendAndWait(bytes, frame) == 0)
            #expect(await wire.next() == WireFrame(header: wanted, bytes: bytes))
            // A frontend that forgot to leave the checksum blank.
            frame.flags = []
            #expect(try await scene.frontend.sendAndWait(Frames.tcp(60_001, isV6: isV6, blank: false), frame) == 0)
            #expect(await wire.next() == WireFrame(header: wanted, bytes: bytes))
            // One segment is none.
            let short = Frames.tcp(1000, isV6: isV6)
            frame.flags = [.checksumBlank, .dataValidated]
            #expect(try await scene.frontend.sendAndWait(short, frame) == 0)
            wanted = Frames.header(short)
            wanted.headerLength = 128
            #expect(await wire.next() == WireFrame(header: wanted, bytes: short))
            try await scene.end()
        }

        @Test func checksumsOfTheGuestReachTheHost() async throws {
            let scene = try await NetScene()
            let wire = try scene.wire
            for bytes in [Frames.udp(700, blank: true), Frames.tcp(400), Frames.tcp(400, isV6: true)] {
                #expect(try await scene.frontend.sendAndWait(bytes, NetworkFrame(flags: .checksumBlank)) == 0)
                var wanted = Frames.header(bytes)
                wanted.headerLength = 128
                #expect(await wire.next() == WireFrame(header: wanted, bytes: bytes))
            }
            #expect(try await scene.frontend.sendAndWait(Frames.udp(80), NetworkFrame(flags: .dataValidated)) == 0)
            #expect(await wire.next()?.header.flags == .dataValid)
            try await scene.end()
        }

        // MARK: what is said of the host's packets

        /// netfront finds no checksum behind a tag and segments nothing there: it drops such packets (skb_checksum_setup).
        @Test(arguments: [false, true], [1448, 8948] as [UInt16])
        func packetsWithTagsAreCutAndSummed(isV6: Bool, size: UInt16) async throws {
            var options = NetworkFrontendOptions()
            options.verifiesChecksums = false
            let scene = try await NetScene(options)
            let wire = try scene.wire
            for payload in [60_001, 20_000, 100] {
                let plain = Frames.tcp(payload, isV6: isV6)
                let bytes = Array(plain[..<12] + [0x81, 0, 0, 10] + plain[12...])
                wire.send(WireFrame(header: Frames.header(bytes, segmentSize: payload > 100 ? size : 0), bytes: bytes))
                let headerBytes = bytes.count - payload
                var rest = payload
                var data: [UInt8] = []
                while rest > 0 {
                    let packet = try #require(await scene.frontend.nextPacket())
                    #expect(packet.bytes.count == headerBytes + min(rest, payload > 100 ? Int(size) : rest))
                    #expect(Array(packet.bytes[12..<16]) == [0x81, 0, 0, 10])
                    #expect(Frames.hasRightChecksum(packet.bytes))
                    #expect(!packet.flags.contains(.checksumBlank) && packet.segmentation == nil)
                    data += packet.bytes[headerBytes...]
                    rest -= packet.bytes.count - headerBytes
                }
                #expect(data == Array(bytes[headerBytes...]))
            }
            #expect(try await scene.counter("rx-dropped") == 0)
            try await scene.end()
        }

        @Test(arguments: [false, true])
        func segmentationOfTheHostReachesTheGuest(isV6: Bool) async throws {
            var options = NetworkFrontendOptions()
            options.verifiesChecksums = false
            let scene = try await NetScene(options)
            let wire = try scene.wire
            #expect(wire.offloads == [[.checksum, .segmentationV4, .segmentationV6]])
            let bytes = Frames.tcp(60_001, isV6: isV6)
            wire.send(WireFrame(header: Frames.header(bytes, segmentSize: 1448), bytes: bytes))
            let packet = try #require(await scene.frontend.nextPacket())
            #expect(packet.bytes == bytes)
            #expect(packet.flags == [.checksumBlank, .dataValidated, .extraInfo, .moreData])
            #expect(packet.segmentation == Segmentation(kind: isV6 ? .tcpv6 : .tcpv4, size: 1448))
            let small = Frames.tcp(100, isV6: isV6)
            wire.send(WireFrame(header: Frames.header(small), bytes: small))
            let second = try #require(await scene.frontend.nextPacket())
            #expect(second.bytes == small && second.flags == [.checksumBlank, .dataValidated])
            var validated = VirtioNetHeader()
            validated.flags = .dataValid
            wire.send(WireFrame(header: validated, bytes: Frames.udp(100)))
            let third = try #require(await scene.frontend.nextPacket())
            #expect(third.flags == .dataValidated && third.segmentation == nil)
            try await scene.end()
        }

        static let weak: [(ReceiveFeatures, [PacketOffloads])] = [
            ([.scatterGather], [[]]), ([.scatterGather, .checksumV6], [.checksum]),
            ([.scatterGather, .checksumV4], [.checksum]), ([.checksumV4, .segmentationV4], [.checksum]),
        ]

        /// The host knows one switch for both families; where the frontend lacks one, we complete its checksums.
        @Test(arguments: weak)
        func frontendsWithoutOffloadGetWholeChecksums(
            receives: ReceiveFeatures,
            offloads: [PacketOffloads]
        ) async throws {
            var options = NetworkFrontendOptions()
            options.receives = receives
            options.verifiesChecksums = false
            let scene = try await NetScene(options)
            let wire = try scene.wire
            #expect(wire.offloads == offloads)
            for isV6 in [false, true] {
                let bytes = Frames.tcp(1000, isV6: isV6)
                wire.send(WireFrame(header: Frames.header(bytes), bytes: bytes))
                let packet = try #require(await scene.frontend.nextPacket())
                let isTaken = receives.contains(isV6 ? .checksumV6 : .checksumV4)
                #expect(packet.flags == (isTaken ? [.checksumBlank, .dataValidated] : .dataValidated))
                #expect(Frames.hasRightChecksum(packet.bytes) == !isTaken)
                // Such a packet should not come; it is dropped.
                wire.send(WireFrame(header: Frames.header(bytes, segmentSize: 100), bytes: bytes))
            }
            wire.send(WireFrame(bytes: Frames.plain(4096)))
            #expect(await scene.frontend.nextPacket()?.bytes == Frames.plain(4096))
            #expect(try await scene.counter("rx-dropped-unfit") == 2)
            wire.send(WireFrame(bytes: Frames.plain(4097)))
            wire.send(WireFrame(bytes: Frames.plain(60)))
            let next = await scene.frontend.nextPacket()
            #expect(next?.bytes.count == (receives.contains(.scatterGather) ? 4097 : 60))
            try await scene.end()
        }
    }
}
