// Packets for a frontend that posts no pages, too few, or bad ones: it costs itself packets, nobody memory (XSA-392).

internal import FrontendDrivers
internal import Hypervisor
internal import SharedRing
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import NetBackend

extension SimulatedNetworkTests {
    @Suite struct ReceiveTests {
        private static let quick = StallTimes(
            drain: .milliseconds(150),
            quickDrain: .milliseconds(30),
            stall: .milliseconds(600),
            pause: .milliseconds(50)
        )

        /// XSA-392, XSA-432: what a guest does not take is dropped after a while, then the host sees no link.
        @Test(arguments: [true, false], [true, false])
        func aGuestThatPostsNothing(notifies: Bool, split: Bool) async throws {
            var options = NetworkFrontendOptions()
            options.postsBuffers = false
            options.receiveNotify = notifies
            options.splitEventChannels = split
            let scene = try await NetScene(options, stall: ReceiveTests.quick)
            let wire = try scene.wire
            let bytes = Frames.plain(9000)
            for _ in 0..<500 { #expect(wire.send(WireFrame(bytes: bytes))) }
            #expect(try await eventually { try await scene.counter("rx-dropped-stalled") == 500 })
            #expect(try await scene.counter("rx-packets") == 0)
            try await scene.bystanderIsServed()
            if notifies {
                #expect(await eventually { wire.carriers == [true, false] })
            }
            // It goes on sending meanwhile.
            #expect(try await scene.frontend.sendAndWait(bytes) == 0)
            #expect(await wire.next()?.bytes == bytes)
            await scene.frontend.setPosting(true)
            if notifies {
                #expect(await eventually { wire.carriers == [true, false, true] })
            } else {
                #expect(wire.carriers == [true])
            }
            wire.send(WireFrame(bytes: bytes))
            #expect(await scene.frontend.nextPacket()?.bytes == bytes)
            try await scene.end()
        }

        /// Fewer pages than the packet needs: it waits for more, and those behind it wait where they are.
        @Test func aPacketWaitsForItsPages() async throws {
            let card = try await RawCard()
            let ring = card.queue.receive
            let bytes = Frames.plain(9000)
            let wire = try card.scene.wire
            for page in 0..<2 { card.post(page: 8 + page, id: UInt16(page), at: UInt32(page)) }
            ring.requestProducer = 2
            ring.notify()
            wire.send(WireFrame(bytes: bytes))
            wire.send(WireFrame(bytes: Frames.plain(77)))
            #expect(await eventually { await (try? card.scene.counter("rx-waits-for-buffers")) ?? 0 > 0 })
            #expect(ring.responseProducer == 0)
            for page in 2..<20 { card.post(page: 8 + page % 20, id: UInt16(page), at: UInt32(page)) }
            ring.requestProducer = 20
            ring.notify()
            #expect(await ring.waitForResponses(upTo: 4))
            #expect((0..<4).map { card.queue.received(at: $0).id } == [0, 1, 2, 3])
            #expect(card.received(0..<3, firstPage: 8) == bytes)
            #expect(card.queue.received(at: 3).status == 77)
            try await card.end()
        }

        /// A frontend that posts page by page, and sends an event only where the ring asks for one: the packet must not
        /// wait for the clock that ends a stall.
        @Test func aPacketWaitsForPagesThatComeOneByOne() async throws {
            let card = try await RawCard()
            let ring = card.queue.receive
            let bytes = Frames.plain(9000)
            let wire = try card.scene.wire
            for page in 0..<2 as Range<UInt32> { card.post(page: 8 + Int(page), id: UInt16(page), at: page) }
            ring.push(to: 2)
            wire.send(WireFrame(bytes: bytes))
            #expect(await eventually { await (try? card.scene.counter("rx-waits-for-buffers")) ?? 0 > 0 })
            for page in 2..<8 as Range<UInt32> {
                card.post(page: 8 + Int(page), id: UInt16(page), at: page)
                ring.push(to: page + 1)
                try await Task.sleep(for: .milliseconds(5))
            }
            #expect(await ring.waitForResponses(upTo: 3))
            #expect(card.received(0..<3, firstPage: 8) == bytes)
            #expect(try await card.scene.counter("rx-dropped-stalled") == 0)
            try await card.end()
        }

        /// Grants that are none, that are read-only, that were revoked: the slot says so, its neighbours have their data.
        @Test func pagesThatCannotBeWritten() async throws {
            let card = try await RawCard()
            let ring = card.queue.receive
            let readOnly = try await card.raw.makePages(1, access: .readOnly)
            var revoked: SharedGrant? = try await card.raw.makePages(1)
            let old = try #require(revoked?.references[0])
            revoked = nil
            let references = [
                card.pages.references[8], GrantReference(0xFFFF_FFF0), card.pages.references[9],
                readOnly.references[0], card.pages.references[10], old, card.pages.references[11],
            ]
            let more = card.pages.references[12]
            for index in 0..<30 {
                let reference = index < references.count ? references[index] : more
                ring.put(ReceiveRequest(id: UInt16(index), reference: reference).words, at: UInt32(index))
            }
            ring.requestProducer = 30
            ring.notify()
            let wire = try card.scene.wire
            let lead = HostWay.current.lead
            let bytes = Frames.plain(4096 * 3 - lead)
            wire.send(WireFrame(bytes: bytes))
            for _ in 0..<4 { wire.send(WireFrame(bytes: Frames.plain(100))) }
            #expect(await ring.waitForResponses(upTo: 7))
            let statuses = (0..<7).map { card.queue.received(at: $0).status }
            #expect(statuses == [Int16(4096 - lead), -1, 4096, -1, 100, -1, 100])
            #expect(
                (0..<7).map { card.queue.received(at: $0).flags.contains(.moreData) }
                    == [true, true, false, false, false, false, false]
            )
            #expect(card.received(0..<1, firstPage: 8) == Array(bytes[..<(4096 - lead)]))
            #expect(card.bytes(9, 4096) == Array(bytes[(8192 - lead)...]))
            #expect(card.received(4..<5, firstPage: 10) == Frames.plain(100))
            #expect(card.received(6..<7, firstPage: 11) == Frames.plain(100))
            #expect(try await card.scene.counter("rx-frontend-faults") == 3)
            try await card.end()
        }

        /// Pages that are revoked after they were posted cost their packets; those that are posted behind them get theirs.
        @Test func aFrontendThatPostsAndRevokes() async throws {
            let card = try await RawCard()
            let ring = card.queue.receive
            let wire = try card.scene.wire
            // Three pages more than packets: so many a packet may take with its extras.
            let (bad, good) = (20 as UInt32, 23 as UInt32)
            for round in 0..<3 as Range<UInt32> {
                var pages: SharedGrant? = try await card.raw.makePages(Int(bad))
                let references = try #require(pages?.references)
                let start = round * (bad + good)
                for index in 0..<bad {
                    let request = ReceiveRequest(id: UInt16(start + index), reference: references[Int(index)])
                    ring.put(request.words, at: start + index)
                }
                pages = nil
                for index in start + bad..<start + bad + good { card.post(page: 8, id: UInt16(index), at: index) }
                ring.push(to: start + bad + good)
                for _ in 0..<40 { wire.send(WireFrame(bytes: Frames.plain(100))) }
                #expect(await ring.waitForResponses(upTo: 40 * round + 40))
            }
            let answers = (0..<120 as Range<UInt32>).map { card.queue.received(at: $0) }
            #expect(answers.map(\.id) == (0..<120).map { UInt16($0) })
            #expect(answers.map(\.status) == (0..<120).map { $0 % (bad + good) < bad ? -1 : 100 })
            #expect(try await card.scene.counter("rx-frontend-faults") == 60)
            try await card.end()
        }

        /// XSA-216, for what goes in: nothing beyond the packet is written to the guest's page, whatever was there before.
        @Test func nothingOfOursGoesWithAPacket() async throws {
            let card = try await RawCard()
            let ring = card.queue.receive
            card.fill(8, [UInt8](repeating: 0xEE, count: 4096))
            card.fill(9, [UInt8](repeating: 0xEE, count: 4096))
            let wire = try card.scene.wire
            for index in 0..<24 { card.post(page: index < 2 ? 8 + index : 12, id: UInt16(index), at: UInt32(index)) }
            ring.requestProducer = 24
            ring.notify()
            wire.send(WireFrame(bytes: Frames.plain(60)))
            wire.send(WireFrame(bytes: Frames.plain(61)))
            #expect(await ring.waitForResponses(upTo: 2))
            let lead = HostWay.current.lead
            let before = [UInt8](repeating: 0xEE, count: lead)
            #expect(card.bytes(8, 4096) == before + Frames.plain(60) + [UInt8](repeating: 0xEE, count: 4036 - lead))
            #expect(card.bytes(9, 4096) == before + Frames.plain(61) + [UInt8](repeating: 0xEE, count: 4035 - lead))
            try await card.end()
        }

        /// 65535 bytes of IP are more with an Ethernet header and tags in front: a guest gets them whole.
        @Test(arguments: [65_535, 65_536, 65_549, 65_557])
        func theLargestFrames(byteCount: Int) async throws {
            var options = NetworkFrontendOptions()
            options.verifiesChecksums = false
            let scene = try await NetScene(options)
            let wire = try scene.wire
            let plain = Frames.plain(byteCount)
            wire.send(WireFrame(bytes: plain))
            #expect(await scene.frontend.nextPacket()?.bytes == plain)
            for isV6 in [false, true] {
                let headers = isV6 ? Frames.headersV6 : Frames.headersV4
                let bytes = Frames.tcp(byteCount - headers, isV6: isV6)
                wire.send(WireFrame(header: Frames.header(bytes, segmentSize: 1428), bytes: bytes))
                let packet = await scene.frontend.nextPacket()
                #expect(packet?.bytes == bytes && packet?.segmentation?.size == 1428)
            }
            try await scene.end()
        }

        /// iPXE posts four pages, and no more before it has packets: each takes the slots that it needs, and waits for none
        /// besides.
        @Test(arguments: [1, 2, 4])
        func asManyPacketsAsPages(posted: UInt32) async throws {
            let card = try await RawCard()
            let ring = card.queue.receive
            let wire = try card.scene.wire
            let bytes = Frames.plain(1514)
            for _ in 0..<3 * posted { wire.send(WireFrame(bytes: bytes)) }
            for round in 0..<3 as Range<UInt32> {
                let start = round * posted
                for index in start..<start + posted { card.post(page: 8 + Int(index), id: UInt16(index), at: index) }
                ring.push(to: start + posted)
                #expect(await ring.waitForResponses(upTo: start + posted), "round \(round)")
                for index in start..<start + posted {
                    #expect(card.received(index..<index + 1, firstPage: 8 + Int(index)) == bytes)
                }
            }
            #expect(try await card.scene.counter("rx-packets") == UInt64(3 * posted))
            try await card.end()
        }

        /// What a packet needs besides its pages: a slot for its segmentation, a slot for its hash.
        @Test(arguments: [false, true], [60, 3000, 9000])
        func aPacketTakesTheSlotsItNeeds(hashes: Bool, payload: Int) async throws {
            let card = try await RawCard(control: true)
            if hashes {
                let control = try #require(card.control)
                control.send(
                    [(ControlType.setHashAlgorithm, 1), (.setHashFlags, 15)].map { type, word in
                        ControlRequest(id: 1, type: type, word).words
                    }
                )
                #expect(await control.waitForResponses(upTo: 2))
            }
            let ring = card.queue.receive
            let bytes = Frames.tcp(payload)
            let pages = (HostWay.current.lead + bytes.count + 4095) / 4096
            let needed = UInt32(pages + 1 + (hashes ? 1 : 0))
            for index in 0..<needed { card.post(page: 8 + Int(index), id: UInt16(index), at: index) }
            ring.push(to: needed - 1)
            let wire = try card.scene.wire
            wire.send(WireFrame(header: Frames.header(bytes, segmentSize: 50), bytes: bytes))
            #expect(await eventually { await (try? card.scene.counter("rx-waits-for-buffers")) ?? 0 > 0 })
            #expect(ring.responseProducer == 0)
            ring.push(to: needed)
            #expect(await ring.waitForResponses(upTo: needed))
            #expect(card.queue.received(at: 0).flags.contains(.extraInfo))
            #expect(try await card.scene.counter("rx-gso") == 1)
            try await card.end()
        }

        /// What a host never gives: too short, too long, headers that contradict their packet.
        @Test func packetsThatNoFrontendTakes() async throws {
            let scene = try await NetScene()
            let wire = try scene.wire
            let tcp = Frames.tcp(1000)
            wire.send(WireFrame(bytes: Array(Frames.plain(14)[..<13])))
            wire.send(WireFrame(bytes: Frames.plain(65_558)))
            var header = Frames.header(tcp)
            header.checksumStart = 60_000
            wire.send(WireFrame(header: header, bytes: tcp))
            header = Frames.header(tcp, segmentSize: 100)
            header.segmentKind = VirtioNetHeader.Kind(rawValue: 5)
            wire.send(WireFrame(header: header, bytes: tcp))
            header.segmentKind = .tcpv6
            wire.send(WireFrame(header: header, bytes: tcp))
            header = Frames.header(tcp, segmentSize: 100)
            header.segmentSize = 0
            wire.send(WireFrame(header: header, bytes: tcp))
            // Segments without a checksum to be made.
            header = Frames.header(tcp, segmentSize: 100)
            header.flags = []
            wire.send(WireFrame(header: header, bytes: tcp))
            wire.send(WireFrame(bytes: Frames.plain(60)))
            // How many bytes it had in one piece is of no interest to anybody.
            header = VirtioNetHeader()
            header.headerLength = 65_535
            wire.send(WireFrame(header: header, bytes: Frames.plain(60)))
            #expect(await scene.frontend.nextPacket()?.bytes == Frames.plain(60))
            #expect(try await scene.counter("rx-dropped-unfit") == 7)
            try await scene.end()
        }
    }
}
