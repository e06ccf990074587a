// Supervision as transcripts: events in, directives out.

import Hypervisor
import Testing

@testable import BackendServer

struct SupervisionTests {
    private let guest = DomainIdentity("11111111-0000-0000-0000-000000000000")
    private let other = DomainIdentity("22222222-0000-0000-0000-000000000000")
    private let long = WorkerLife(duration: .seconds(90), progressed: true)
    private let short = WorkerLife(duration: .milliseconds(20), progressed: false)

    /// Takes events one by one and returns the last answer.
    private func run(_ supervision: inout Supervision, _ events: SupervisionEvent...) -> [SupervisionDirective] {
        events.reduce([]) { supervision.take($1) }
    }

    @Test func aDomainWithDevicesGetsOneWorker() {
        var machine = Supervision()
        #expect(run(&machine, .seen(.worker, identity: guest)) == [.start])
        #expect(run(&machine, .seen(.worker, identity: guest)) == [])
        #expect(machine.served == guest)
    }

    @Test func theFirstDeathCostsNothingAndARowOfThemMoreAndMore() {
        var machine = Supervision()
        _ = run(&machine, .seen(.worker, identity: guest))
        #expect(run(&machine, .ended(long)) == [.start])
        #expect(run(&machine, .ended(short)) == [.wake(after: .milliseconds(50))])
        // A scan in between does not shorten the pause.
        #expect(run(&machine, .seen(.worker, identity: guest)) == [])
        #expect(run(&machine, .woken) == [.start])
        #expect(run(&machine, .ended(short)) == [.wake(after: .milliseconds(100))])
        #expect(run(&machine, .woken, .ended(long)) == [.start])
    }

    @Test func aWorkerThatCannotStartIsTriedAgain() {
        var machine = Supervision()
        _ = run(&machine, .seen(.worker, identity: guest))
        #expect(run(&machine, .startFailed) == [.wake(after: .milliseconds(100))])
        #expect(run(&machine, .woken) == [.start])
        #expect(run(&machine, .startFailed) == [.wake(after: .milliseconds(50))])
    }

    @Test func aWorkerWithoutDevicesLeavesAndIsMadeTo() {
        var machine = Supervision()
        _ = run(&machine, .seen(.worker, identity: guest))
        #expect(run(&machine, .seen(.nothing, identity: guest)) == [.wake(after: Supervision.leaveTime)])
        var patient = machine
        #expect(run(&patient, .ended(long)) == [.removeFiles, .forget])
        // A new device comes before it left: it stays.
        var again = machine
        #expect(run(&again, .seen(.worker, identity: guest), .woken) == [])
        #expect(run(&machine, .woken).first == .drain("it has no devices and does not leave"))
        #expect(run(&machine, .woken) == [.kill])
        #expect(run(&machine, .ended(long)) == [.removeFiles, .forget])
    }

    /// An upgrade's drain ends after the number went to another domain: what the old one left must go first.
    @Test func filesOfTheOldDomainGoBeforeTheNewOnesWorkerStarts() {
        var machine = Supervision()
        #expect(run(&machine, .adopted(serving: guest, foreign: true)).count == 2)
        #expect(run(&machine, .seen(.worker, identity: other)) == [])
        #expect(run(&machine, .ended(long)) == [.removeFiles, .start])
        #expect(machine.served == other)
        // The same where it leaves by itself.
        #expect(run(&machine, .seen(.nothing, identity: other)).count == 1)
        #expect(run(&machine, .ended(long)) == [.removeFiles, .forget])
    }

    @Test func aDeadDomainsFilesGo() {
        var machine = Supervision()
        _ = run(&machine, .seen(.worker, identity: guest))
        #expect(run(&machine, .seen(.nothing, identity: nil)) == [.wake(after: Supervision.goneTime)])
        #expect(run(&machine, .ended(long)) == [.removeFiles, .forget])
    }

    @Test func aDeadDomainGetsNoNewWorkerButItsDevicesAreClosed() {
        var machine = Supervision()
        _ = run(&machine, .seen(.worker, identity: guest), .seen(.worker, identity: nil))
        #expect(run(&machine, .ended(short)) == [.removeFiles, .closeAbandoned])
        #expect(run(&machine, .seen(.nothing, identity: nil)) == [.removeFiles, .forget])
    }

    /// The toolstack does not wait for a worker that hangs.
    @Test func aDeadDomainsWorkerThatClosesNothingIsMadeToLeave() {
        var machine = Supervision()
        _ = run(&machine, .seen(.worker, identity: guest))
        #expect(run(&machine, .seen(.worker, identity: nil)) == [.wake(after: Supervision.goneTime)])
        #expect(run(&machine, .seen(.worker, identity: nil)) == [])
        #expect(run(&machine, .woken).first == .drain("its domain is gone and its devices are not closed"))
        #expect(run(&machine, .woken) == [.kill])
        #expect(run(&machine, .ended(long)) == [.removeFiles, .closeAbandoned])
    }

    @Test func aDomainNumberUsedAgainEndsTheOldWorkerFirst() {
        var machine = Supervision()
        _ = run(&machine, .seen(.worker, identity: guest))
        let drained = run(&machine, .seen(.worker, identity: other))
        #expect(drained == [.drain("domain number is in use by another domain"), .wake(after: Supervision.goneTime)])
        #expect(run(&machine, .seen(.worker, identity: other)) == [])
        #expect(run(&machine, .ended(long)) == [.removeFiles, .start])
        #expect(machine.served == other)
    }

    @Test func filesOfAnEarlierDomainAreRemovedBeforeTheStart() {
        var machine = Supervision()
        #expect(run(&machine, .remains(of: other), .seen(.worker, identity: guest)) == [.removeFiles, .start])
        // The same domain's files are its journals: they stay.
        var same = Supervision()
        #expect(run(&same, .remains(of: guest), .seen(.worker, identity: guest)) == [.start])
    }

    @Test func adoptedWorkersStayUnlessOfAnotherBuild() {
        var machine = Supervision()
        #expect(run(&machine, .adopted(serving: guest, foreign: false), .seen(.worker, identity: guest)) == [])
        var old = Supervision()
        #expect(
            run(&old, .adopted(serving: guest, foreign: true))
                == [.drain("it runs another build"), .wake(after: Supervision.drainTime)]
        )
        #expect(run(&old, .seen(.worker, identity: guest), .ended(long)) == [.start])
    }

    @Test func anAdoptedWorkersJournalsOutliveItBeforeTheFirstScan() {
        for foreign in [true, false] {
            var machine = Supervision()
            _ = run(&machine, .adopted(serving: guest, foreign: foreign))
            #expect(run(&machine, .ended(short)) == [])
            #expect(run(&machine, .woken) == [])
            #expect(run(&machine, .seen(.worker, identity: guest)) == [.start])
        }
    }

    @Test func stoppingDrainsAndStartsNothing() {
        var machine = Supervision()
        _ = run(&machine, .seen(.worker, identity: guest))
        #expect(run(&machine, .stop) == [.drain("the service stops"), .wake(after: Supervision.drainTime)])
        #expect(run(&machine, .seen(.worker, identity: guest)) == [])
        #expect(run(&machine, .ended(short)) == [.forget])
        #expect(run(&machine, .seen(.worker, identity: guest)) == [])
        var waiting = Supervision()
        _ = run(&waiting, .seen(.worker, identity: guest), .ended(long), .ended(short))
        #expect(run(&waiting, .stop) == [.forget])
        #expect(run(&waiting, .woken) == [])
    }

    @Test func closedDevicesKeepTheirFilesAndGetNoWorker() {
        var machine = Supervision()
        _ = run(&machine, .seen(.worker, identity: guest), .seen(.closedDevices, identity: guest))
        #expect(run(&machine, .ended(short)) == [])
        #expect(run(&machine, .seen(.closedDevices, identity: guest)) == [])
        #expect(run(&machine, .seen(.worker, identity: guest)) == [.start])
    }
}

struct RestartBackoffTests {
    @Test func pausesGrowToALimit() {
        var backoff = RestartBackoff()
        let life = WorkerLife(duration: .milliseconds(10), progressed: false)
        let pauses = (0..<40).map { _ in backoff.pause(after: life) }
        #expect(pauses.prefix(4) == [.zero, .milliseconds(50), .milliseconds(100), .milliseconds(200)])
        #expect(pauses.last == .seconds(10))
        #expect(zip(pauses, pauses.dropFirst()).allSatisfy { $0 <= $1 })
    }

    @Test func aWorkerThatServesAndIsKilledComesBackAtOnceEveryTime() {
        var backoff = RestartBackoff()
        let life = WorkerLife(duration: .seconds(2), progressed: true)
        for _ in 0..<20 { #expect(backoff.pause(after: life) == .zero) }
        // Serving for an instant before each death does not make a busy loop of restarts.
        let brief = WorkerLife(duration: .milliseconds(30), progressed: true)
        let pauses = (0..<20).map { _ in backoff.pause(after: brief) }
        #expect(pauses.last == .milliseconds(250))
    }
}

struct CrashAttributionTests {
    private let life = WorkerLife(duration: .milliseconds(40), progressed: false)

    private func device(_ name: String, busy: Bool, progressed: Bool = false, _ crashes: UInt32 = 0) -> CrashSuspect {
        CrashSuspect(name: name, busy: busy, progressed: progressed, crashes: crashes)
    }

    @Test func onlyBusyDevicesAreSuspected() {
        let devices = [
            device("vbd3/1", busy: true, 1), device("vbd3/2", busy: false, 1), device("vbd3/3", busy: false),
        ]
        #expect(CrashAttribution.crashes(of: devices, life: life) == [2, 1, 0])
    }

    @Test func progressInBetweenBeginsANewRow() {
        let devices = [
            device("vbd3/1", busy: true, progressed: true, 2), device("vbd3/2", busy: false, progressed: true, 2),
        ]
        #expect(CrashAttribution.crashes(of: devices, life: life) == [1, 0])
    }

    @Test func aLongLifeBeginsANewRow() {
        let long = WorkerLife(duration: .seconds(61), progressed: false)
        #expect(CrashAttribution.crashes(of: [device("vbd3/1", busy: true, 2)], life: long) == [1])
    }

    @Test func theThirdInARowIsTheLimit() {
        var crashes: UInt32 = 0
        for _ in 0..<3 {
            crashes = CrashAttribution.crashes(of: [device("vbd3/1", busy: true, crashes)], life: life)[0]
        }
        #expect(crashes == CrashAttribution.limit)
    }
}
