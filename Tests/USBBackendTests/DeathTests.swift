// A worker that ends at any store into its journal: each URB is answered once, and never okay unless the device did it.

internal import FrontendDrivers
internal import HostUSB
internal import SharedRing
internal import Testing
internal import XenWire

@testable internal import USBBackend

extension SimulatedControllerTests {
    @Suite struct DeathTests {
        /// Requests that are answered before those that count: so these go around the ring's end.
        private static let first: UInt32 = 12

        /// One of the guest's URBs.
        private struct Ask {
            enum Kind {
                case send(tag: UInt32)
                case receive(isFlagged: Bool)
                /// Received through endpoint 0.
                case control
                /// Done through the host's stack.
                case host
                case unlink
            }
            let kind: Kind
            var page = 0
            var count = 0
            let bytes: [UInt8]
        }

        /// What the guest asks for, in the order of the ring; an URB's id is its place.
        private static func asks(_ stage: DeathStage) -> [Ask] {
            var asks: [Ask] = []
            func receive(_ page: Int, _ count: Int, _ endpoint: UInt8 = 1, isFlagged: Bool = false) {
                let isBulk = endpoint == 1
                let bytes = RawUSBRings.request(
                    id: UInt16(asks.count),
                    DeathStage.pipe(isBulk ? .bulk : .interrupt, endpoint, .in),
                    isBulk ? .bulk : .interrupt(interval: 8),
                    segments: stage.segments(page, count),
                    flags: isFlagged ? 1 : 0
                )
                asks.append(Ask(kind: .receive(isFlagged: isFlagged), page: page, count: count, bytes: bytes))
            }
            func send(_ page: Int, _ count: Int) {
                let tag = UInt32(0x5000 + asks.count)
                stage.write(tag, page: page)
                let bytes = RawUSBRings.request(
                    id: UInt16(asks.count),
                    DeathStage.pipe(.bulk, 2, .out),
                    .bulk,
                    segments: stage.segments(page, count)
                )
                asks.append(Ask(kind: .send(tag: tag), page: page, count: count, bytes: bytes))
            }
            func control(_ page: Int, _ request: UInt8) {
                let bytes = stage.vendor(UInt16(asks.count), page: page, request: request)
                asks.append(Ask(kind: .control, page: page, count: 64, bytes: bytes))
            }
            func unlink(_ id: UInt16) {
                asks.append(Ask(kind: .unlink, bytes: stage.unlink(UInt16(asks.count), of: id)))
            }
            control(0, 1)
            send(1, 600)
            receive(2, 1024)
            for part in 3..<6 { receive(part, 4096, isFlagged: true) }
            receive(6, 512)
            receive(7, 8, 3)
            let clearHalt = SetupPacket(0x02, 1, value: 0, index: 0x81)
            let bytes = RawUSBRings.request(
                id: UInt16(asks.count),
                DeathStage.pipe(.control, 0, .out),
                .control(clearHalt)
            )
            asks.append(Ask(kind: .host, bytes: bytes))
            unlink(99)
            control(8, 2)
            control(9, 1)
            // Behind what can be answered of those above.
            unlink(7)
            unlink(10)
            send(10, 4096)
            receive(11, 512, isFlagged: true)
            return asks
        }

        /// The first life, up to its natural end.
        private func firstLife(_ stage: DeathStage, _ asks: [Ask]) async throws -> [Moment] {
            let queue = try await stage.begin()
            try await stage.address()
            for number in 1..<DeathTests.first {
                stage.rings.send([stage.vendor(UInt16(number), page: 20)])
                #expect(await stage.sees(number + 1))
            }
            stage.record()
            stage.rings.send(asks[..<12].map(\.bytes))
            #expect(await stage.sees(DeathTests.first + 9))
            stage.rings.send(asks[12...].map(\.bytes))
            #expect(await stage.sees(DeathTests.first + 16))
            let moments = try stage.recorded()
            try await stage.end(queue)
            return moments
        }

        @Test func aWorkerEndsAtAnyStore() async throws {
            let stage = try await DeathStage()
            let asks = DeathTests.asks(stage)
            let moments = try await firstLife(stage, asks)
            #expect(moments.count > 120)
            for (number, moment) in moments.enumerated() {
                let queue = try await stage.succeed(moment, hangs: false, awaitsDevice: number % 2 == 0)
                try await check(stage, asks, moment, "moment \(number)")
                try await stage.end(queue)
            }
        }

        /// Twice in a row: the second one while it answers for the first.
        @Test func itsSuccessorEndsTooAtAnyStore() async throws {
            let stage = try await DeathStage()
            let asks = DeathTests.asks(stage)
            let moments = try await firstLife(stage, asks)
            for moment in [moments.count / 4, moments.count / 2, moments.count * 3 / 4].map({ moments[$0] }) {
                stage.record()
                let second = try await stage.succeed(moment, hangs: false, awaitsDevice: false)
                #expect(await stage.sees(moment.pushed))
                let deaths = try stage.recorded()
                try await stage.end(second)
                #expect(!deaths.isEmpty)
                for (number, death) in deaths.enumerated() {
                    let third = try await stage.succeed(death, hangs: false, awaitsDevice: number % 2 == 0)
                    try await check(stage, asks, death, "death \(number)")
                    try await stage.end(third)
                }
            }
        }

        // MARK: what must hold

        /// The life that follows a moment answers everything, and what it answers is true.
        private func check(_ stage: DeathStage, _ asks: [Ask], _ moment: Moment, _ name: Comment) async throws {
            try #require(await stage.sees(moment.pushed), name)
            let lives = moment.lives + [(moment.pushed, stage.function.ledger)]
            var answered: Set<UInt16> = []
            for index in DeathTests.first..<max(moment.pushed, DeathTests.first) {
                let response = stage.rings.answer(at: index)
                #expect(answered.insert(response.id).inserted, name)
                let ask = try #require(asks.indices.contains(Int(response.id)) ? asks[Int(response.id)] : nil, name)
                let isOld = index < moment.published
                let isLost = !isOld && Int32(bitPattern: DeathTests.first + UInt32(response.id) &- moment.consumed) < 0
                let life = try #require(lives.first { index < $0.published }, name)
                checkStatus(response, ask, isOld: isOld, isLost: isLost, name)
                if response.status == .okay { checkDone(stage, response, ask, life.ledger, name) }
            }
            #expect(answered.count == Int(moment.pushed - DeathTests.first), name)
            // No slot is lost: the ring takes sixteen.
            stage.rings.send((0..<16).map { stage.vendor($0, page: 12 + Int($0)) })
            try #require(await stage.sees(moment.pushed + 16), name)
            let last = (0..<16).map { stage.rings.answer(at: moment.pushed + $0) }
            #expect(last.allSatisfy { $0.status == .okay && $0.byteCount == 64 }, name)
            #expect(Set(last.map(\.id)).count == 16, name)
        }

        private func checkStatus(_ response: URBResponse, _ ask: Ask, isOld: Bool, isLost: Bool, _ name: Comment) {
            let urb: Comment = "\(name), URB \(response.id): \(response.status)"
            switch ask.kind {
            case .unlink: #expect(response.status == .okay || !isLost && response.status == .notFound, urb)
            case .send, .receive, .control, .host:
                if isLost {
                    #expect(response.status == .ioError && response.byteCount == 0, urb)
                } else if !isOld {
                    #expect(response.status == .okay || response.status == .unlinked, urb)
                }
            }
        }

        /// Okay is only what the device of that life has done, with its bytes.
        private func checkDone(
            _ stage: DeathStage,
            _ response: URBResponse,
            _ ask: Ask,
            _ ledger: LedgerFunction.Ledger,
            _ name: Comment
        ) {
            let urb: Comment = "\(name), URB \(response.id)"
            switch ask.kind {
            case .unlink, .host: return
            case .send(let tag):
                #expect(ledger.taken.contains(tag), urb)
                #expect(response.byteCount == UInt32(ask.count), urb)
            case .receive(isFlagged: true) where response.byteCount == 0:
                // Behind a short one.
                #expect(ledger.sent.values.contains(LedgerFunction.shortBytes), urb)
            case .receive, .control:
                let word = stage.word(page: ask.page)
                let sent = ledger.sent[word >> 16] ?? -1
                let place = Int(word & 0xFFFF) * 4
                #expect(Int(response.byteCount) == min(ask.count, sent - place), urb)
            }
        }
    }
}
