// The control ring and multicast: every operation, what it does to packets, and what no frontend may ask for.

internal import FrontendDrivers
internal import Hypervisor
internal import SharedRing
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import NetBackend

extension SimulatedNetworkTests {
    @Suite struct ControlTests {
        private static let key = (0..<40).map { UInt8($0 * 5 + 1) }

        private func scene(queues: Int = 4, multicast: Bool = false) async throws -> NetScene {
            var options = NetworkFrontendOptions()
            options.queueCount = queues
            options.controlRing = true
            options.multicastControl = multicast
            return try await NetScene(options)
        }

        private func words(_ values: [UInt32]) -> [UInt8] {
            values.flatMap { value in [0, 8, 16, 24].map { UInt8(truncatingIfNeeded: value >> $0) } }
        }

        private func multicast(_ number: UInt8) -> MACAddress { MACAddress(0x01, 0, 0x5E, 0, 0, number) }

        private func frame(to address: MACAddress) -> [UInt8] {
            var bytes = Frames.plain(100)
            bytes.replaceSubrange(0..<6, with: Frames.octets(address))
            return bytes
        }

        // MARK: hash

        @Test func everyOperationAnswersAsNetifSays() async throws {
            let scene = try await scene()
            let frontend = scene.frontend
            func ask(
                _ type: ControlType,
                _ first: UInt32 = 0,
                _ second: UInt32 = 0,
                _ third: UInt32 = 0,
                page: [UInt8]? = nil
            ) async throws -> [UInt32] {
                let answer = try await frontend.control(type, first, second, third, page: page)
                #expect(answer.type == type)
                return [answer.status, answer.data]
            }
            #expect(try await ask(.getHashFlags) == [1, 0], "no algorithm yet")
            #expect(try await ask(.setHashFlags, 3) == [2, 0])
            #expect(try await ask(.setHashAlgorithm, 2) == [2, 0])
            #expect(try await ask(.setHashAlgorithm, 1) == [0, 0])
            #expect(try await ask(.getHashFlags) == [0, 15])
            #expect(try await ask(.setHashFlags, 16) == [2, 0])
            #expect(try await ask(.setHashKey, 0, 40, page: ControlTests.key) == [0, 0])
            #expect(try await ask(.setHashKey, 0, 41, page: ControlTests.key) == [3, 0], "a key too long")
            #expect(try await ask(.setHashKey, 0, .max, page: ControlTests.key) == [3, 0], "a huge key")
            #expect(try await ask(.setHashKey, 0xFFFF_FFF0, 40) == [2, 0], "a key in no page")
            #expect(try await ask(.getHashMappingSize) == [0, 128])
            #expect(try await ask(.setHashMappingSize, 129) == [2, 0])
            #expect(try await ask(.setHashMappingSize, 4) == [0, 0])
            // XSA-270: entries outside the mapping, also where the sum wraps; queues that are none.
            for (count, offset) in [(5, 0), (1, 4), (4, 1), (2, .max), (.max, 1), (.max, .max)] as [(UInt32, UInt32)] {
                #expect(try await ask(.setHashMapping, 0, count, offset, page: words([0, 1, 2, 3])) == [2, 0])
            }
            #expect(try await ask(.setHashMapping, 0, 2, 0, page: words([0, 4])) == [2, 0])
            #expect(try await ask(.setHashMapping, 0, 1, 0, page: words([.max])) == [2, 0])
            #expect(try await ask(.setHashMapping, 0xFFFF_FFF0, 1) == [2, 0], "entries in no page")
            #expect(try await ask(.setHashMapping, 0, 4, 0, page: words([3, 2, 1, 0])) == [0, 0])
            #expect(try await ask(.setHashFlags, 15) == [0, 0])
            for type in [ControlType.getGrantMappingSize, .addGrantMapping, .deleteGrantMapping] {
                #expect(try await ask(type) == [1, 0])
            }
            for type in [0, 11, 0xFFFF] as [UInt16] { #expect(try await ask(ControlType(rawValue: type)) == [1, 0]) }
            try await scene.end()
        }

        @Test func packetsGoToTheQueueOfTheirHash() async throws {
            let scene = try await scene()
            let wire = try scene.wire
            let mapping: [UInt32] = (0..<128).map { ($0 * 7 + 1) % 4 }
            try await scene.frontend.setHash(types: .all, key: ControlTests.key, mapping: mapping)
            var seen: Set<Int> = []
            for number in 0..<40 {
                let isV6 = number % 2 == 1
                let bytes = Frames.tcp(100 + number, isV6: isV6, blank: false, port: UInt16(2000 + 77 * number))
                wire.send(WireFrame(bytes: bytes), queue: number % 4)
                let packet = try #require(await scene.frontend.nextPacket())
                let wanted = hash(bytes)
                #expect(packet.bytes == bytes && packet.hash == wanted)
                #expect(packet.queue == Int(mapping[Int((wanted?.value ?? 0) % 128)]))
                seen.insert(packet.queue)
            }
            #expect(seen.count == 4)
            // What has no hash stays where it came.
            wire.send(WireFrame(bytes: Frames.plain(60)), queue: 2)
            let plain = try #require(await scene.frontend.nextPacket())
            #expect(plain.queue == 2 && plain.hash == nil)
            // None at all any more.
            #expect(try await scene.frontend.control(.setHashAlgorithm, 0).status == 0)
            wire.send(WireFrame(bytes: Frames.tcp(100, blank: false)), queue: 1)
            let free = try #require(await scene.frontend.nextPacket())
            #expect(free.queue == 1 && free.hash == nil)
            try await scene.end()
        }

        /// The hash as netif.h describes it.
        private func hash(_ bytes: [UInt8]) -> PacketHash? {
            var result: PacketHash?
            _ = Frames.edit(bytes) { slot in
                let headers = PacketHeaders(parsing: slot, count: slot.byteCount)
                let isV6 = headers.network == .ipv6
                let start = headers.networkOffset + (isV6 ? 8 : 12)
                let input =
                    (start..<start + (isV6 ? 32 : 8)).map { slot.u8($0) }
                    + (0..<4).map { slot.u8(headers.transportOffset + $0) }
                var value: UInt32 = 0
                for (index, byte) in input.enumerated() {
                    for bit in 0..<8 where byte & (0x80 >> UInt8(bit)) != 0 { value ^= window(8 * index + bit) }
                }
                result = PacketHash(kind: isV6 ? .ipv6TCP : .ipv4TCP, value: value)
            }
            return result
        }

        /// 32 bits of the key from a bit on.
        private func window(_ bit: Int) -> UInt32 {
            (bit..<bit + 32).reduce(0) { value, place in
                let byte = place / 8 < 40 ? ControlTests.key[place / 8] : 0
                return value << 1 | UInt32(byte >> UInt8(7 - place % 8) & 1)
            }
        }

        @Test(arguments: [129, 0x8000_0000] as [UInt32])
        func theControlRingLies(producer: UInt32) async throws {
            let card = try await RawCard(control: true)
            try await card.sends()
            let control = try #require(card.control)
            control.requestProducer = producer
            control.notify()
            try await card.scene.isClosed(saying: "control ring")
            try await card.end(victimServes: false)
        }

        /// A ring full of requests is answered one by one.
        @Test func aRingFullOfRequests() async throws {
            let card = try await RawCard(control: true)
            let control = try #require(card.control)
            let all = (0..<128).map { ControlRequest(id: UInt16($0), type: .getHashMappingSize) }
            control.send(all.map(\.words))
            #expect(await control.waitForResponses(upTo: 128))
            for (index, request) in all.enumerated() {
                let answer = control.read(at: UInt32(index)) { ControlResponse(decoding: $0) }
                #expect(answer == ControlResponse(to: request, .success, data: 128))
            }
            try await card.end()
        }

        // MARK: multicast

        @Test func aListOfAddressesHasAnEnd() async throws {
            let scene = try await scene(queues: 1, multicast: true)
            let wire = try scene.wire
            for number in 0..<64 {
                #expect(try await scene.frontend.multicast(.add(multicast(UInt8(number)))) == 0)
            }
            for number in 64..<255 {
                #expect(try await scene.frontend.multicast(.add(multicast(UInt8(number)))) == -1)
            }
            #expect(try await scene.frontend.multicast(.add(multicast(3))) == 0, "it is there already")
            #expect(try await scene.frontend.multicast(.delete(multicast(3))) == 0)
            #expect(try await scene.frontend.multicast(.delete(multicast(200))) == 0)
            for (address, isWanted) in [
                (multicast(3), false), (multicast(64), false), (multicast(63), true), (MACAddress.broadcast, true),
                (guestAddress, true),
            ] {
                wire.send(WireFrame(bytes: frame(to: address)))
                guard isWanted else { continue }
                #expect(await scene.frontend.nextPacket()?.bytes == frame(to: address))
            }
            #expect(try await scene.counter("rx-filtered") == 2)
            #expect(wire.receive() == nil, "nothing was sent with the requests")
            try await scene.end()
        }

        @Test func multicastControlIsTurnedOnAndOffLive() async throws {
            let scene = try await scene(queues: 1)
            let wire = try scene.wire
            let stray = frame(to: multicast(9))
            wire.send(WireFrame(bytes: stray))
            #expect(await scene.frontend.nextPacket()?.bytes == stray)
            for isOn in [true, false] {
                try await scene.frontend.bus.publish([(NetKeys.requestMulticastControl, isOn ? "1" : "0")])
                #expect(await eventually { await (try? scene.isFiltering()) == isOn })
                wire.send(WireFrame(bytes: stray))
                wire.send(WireFrame(bytes: Frames.plain(60)))
                let first = try #require(await scene.frontend.nextPacket())
                #expect(first.bytes == (isOn ? Frames.plain(60) : stray))
            }
            try await scene.end()
        }
    }
}

extension NetScene {
    func isFiltering() async throws -> Bool { try await backend.shared?.isFiltering ?? false }
}
