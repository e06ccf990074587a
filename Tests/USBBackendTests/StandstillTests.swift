// An endpoint's queue stands still behind an URB that failed or was short, until the driver has heard of it.

internal import FrontendDrivers
internal import HostUSB
internal import SharedRing
internal import SimulatedHost
internal import Testing
internal import XenWire

@testable internal import USBBackend

extension SimulatedControllerTests {
    @Suite struct StandstillTests {
        /// Long enough for what must not happen.
        private static let pause = Duration.milliseconds(100)

        /// An URB that is short (or fails) and was answered, which the guest has not seen; another one, put into the ring
        /// behind that answer.
        private func standstill(failing: SimulatedFault? = nil) async throws -> (DeathStage, USBQueue, Int) {
            let stage = try await DeathStage()
            let queue = try await stage.begin()
            try await stage.address()
            if let failing { try stage.faults.add(failing, endpoint: 0x81) }
            stage.rings.send([stage.receive(1, page: 0, 12288, isFlagged: failing == nil)])
            try #require(await stage.hasAnswered(stage.pushed))
            let sent = stage.function.ledger.sent.count
            stage.rings.send([stage.receive(2, page: 4, 512, isFlagged: true)])
            try await Task.sleep(for: StandstillTests.pause)
            #expect(stage.function.ledger.sent.count == sent)
            #expect(stage.rings.urbs.responseProducer == stage.pushed - 1)
            return (stage, queue, sent)
        }

        private func resumes(_ stage: DeathStage, _ queue: USBQueue) async throws {
            stage.rings.send([stage.receive(4, page: 5, 512)])
            #expect(await stage.sees(stage.pushed))
            #expect(stage.rings.answer(at: stage.pushed - 1).byteCount == 512)
            try await stage.end(queue)
        }

        /// What usb-storage does: it takes back all that is behind the short one.
        @Test(arguments: [nil, SimulatedFault.transactionError, .babble])
        func whatIsTakenBackNeverBegins(failing: SimulatedFault?) async throws {
            let (stage, queue, sent) = try await standstill(failing: failing)
            stage.rings.send([stage.unlink(3, of: 2)])
            #expect(await stage.sees(stage.pushed))
            let answers = [stage.pushed - 2, stage.pushed - 1].map { stage.rings.answer(at: $0) }
            #expect(
                Dictionary(answers.map { ($0.id, $0.status) }, uniquingKeysWith: { $1 }) == [2: .unlinked, 3: .okay]
            )
            #expect(stage.function.ledger.sent.count == sent)
            try await resumes(stage, queue)
        }

        /// A driver that wants the next one all the same, or that asked for it when it knew.
        @Test func whatIsWantedBeginsWhenTheDriverHasHeard() async throws {
            let (stage, queue, sent) = try await standstill()
            // As xen-hcd says it: no event comes with it.
            stage.rings.urbs.responseEvent = stage.rings.urbs.responseProducer + 1
            #expect(await stage.hasAnswered(stage.pushed))
            let answer = stage.rings.answer(at: stage.pushed - 1)
            #expect(answer.status == .okay && answer.byteCount == 512)
            #expect(stage.function.ledger.sent.count == sent + 1)
            try await resumes(stage, queue)
        }

        /// A frontend that never says what it has seen waits, but not for ever.
        @Test func aFrontendThatSaysNothing() async throws {
            let (stage, queue, _) = try await standstill()
            #expect(await stage.hasAnswered(stage.pushed))
            try await resumes(stage, queue)
        }

        /// What was in the ring before the short one was answered ends behind it, in order; an URB that does not belong to it
        /// waits like the rest.
        @Test func whatWasInTheRingEndsInOrder() async throws {
            let stage = try await DeathStage()
            let queue = try await stage.begin()
            try await stage.address()
            let first = stage.pushed
            stage.rings.send(
                (0..<3).map { stage.receive($0, page: Int($0), 4096, isFlagged: true) } + [
                    stage.receive(3, page: 4, 512)
                ]
            )
            #expect(await stage.hasAnswered(first + 3))
            try await Task.sleep(for: StandstillTests.pause)
            let answers = (0..<3).map { stage.rings.answer(at: first + $0) }
            #expect(answers.map(\.id) == [0, 1, 2])
            #expect(answers.map(\.status) == [.okay, .okay, .okay])
            #expect(answers.map(\.byteCount) == [4096, 904, 0])
            #expect(stage.rings.urbs.responseProducer == first + 3)
            #expect(await stage.sees(first + 4))
            #expect(stage.rings.answer(at: first + 3).byteCount == 512)
            try await resumes(stage, queue)
        }
    }
}
