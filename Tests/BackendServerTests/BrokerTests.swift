// The broker on a simulated host, with workers that only sleep: what it starts, watches, ends and removes.

import BackendCore
import ControlProtocol
import HostIO
import Hypervisor
import SimulatedHost
import SimulatedHypervisor
import SystemPackage
import Testing
import XenWire

@testable import BackendServer

#if canImport(Glibc)
    import Glibc
#endif

/// Says that every disk is ours and makes none: the broker only asks.
private struct AnyDisk: DeviceClass {
    var kinds: [DeviceKind] { [.vbd, .vbd3] }
    func owns(_ keys: BackendNodes) -> Bool { keys.path.kind == .vbd3 || keys["script"] == "ours" }
    func makeBackend(_ path: DevicePath, _ environment: WorkerEnvironment) -> any DeviceBackend {
        fatalError("the broker makes no backends")
    }
}

/// Not in parallel: they measure time, and count this process's children.
@Suite(.serialized, .timeLimit(.minutes(2)))
struct BrokerTests {
    /// A broker whose workers are `sleep`; the domain's number is part of the command.
    private func broker(
        _ host: SimulatedHost,
        command: [String] = ["/bin/sleep"],
        workerLimit: Int = 1024,
        own: (any Hypervisor)? = nil
    ) -> (Broker, Task<Void, Never>) {
        let broker = unstartedBroker(host, command: command, workerLimit: workerLimit, own: own)
        return (
            broker,
            Task(executorPreference: host.loop) {
                await broker.run()
                await broker.stopped()
            }
        )
    }

    private func unstartedBroker(
        _ host: SimulatedHost,
        command: [String] = ["/bin/sleep"],
        workerLimit: Int = 1024,
        own: (any Hypervisor)? = nil
    ) -> Broker {
        let setting = BrokerSetting(
            run: host.run,
            workerCommand: { command + ["100\($0 ?? .initial)"] },
            build: "this build",
            workerLimit: workerLimit
        )
        return Broker(
            loop: host.loop,
            hypervisor: own ?? host.dom0,
            setting: setting,
            classes: DeviceClasses(all: [AnyDisk()]),
            log: host.log
        )
    }

    private func process(_ broker: Broker, _ domain: UInt16) async -> CInt? {
        await broker.process(of: DomainID(domain)!)
    }

    @Test func oneWorkerPerDomainAndNoneForForeignDisks() async throws {
        let host = try SimulatedHost()
        for domain in 1...3 { try host.machine.createDomain(DomainID(UInt16(domain))!) }
        let (broker, task) = broker(host)
        try await host.attach(1)
        try await host.attach(1, 51728)
        try await host.attach(2)
        let foreign = "backend/vbd/3/51712"
        for (key, value) in [("frontend", "/local/domain/3/device/vbd/51712"), ("state", "1"), ("script", "block")] {
            try await host.dom0.store.write("\(foreign)/\(key)", value)
        }
        try await eventually("two workers") { await broker.workerCount == 2 }
        try await eventually("processes") { await self.process(broker, 1) != nil }
        #expect(await process(broker, 1) != process(broker, 2))
        #expect(await process(broker, 3) == nil)
        await broker.stop()
        await task.value
    }

    @Test func aKilledWorkerIsReplacedAtOnce() async throws {
        let host = try SimulatedHost()
        try host.machine.createDomain(DomainID(1)!)
        try host.machine.createDomain(DomainID(2)!)
        let (broker, task) = broker(host)
        try await host.attach(1)
        try await host.attach(2)
        try await eventually("a worker") { await self.process(broker, 1) != nil }
        try await eventually("another") { await self.process(broker, 2) != nil }
        let (first, other) = (try #require(await process(broker, 1)), await process(broker, 2))
        kill(first, SIGKILL)
        let pause = try await eventually("another worker") {
            let now = await self.process(broker, 1)
            return now != nil && now != first
        }
        print("from SIGKILL to the successor's start: \(pause)")
        // The scheduler's on a busy machine; 5 ms on an idle one.
        #expect(await process(broker, 2) == other)
        await broker.stop()
        await task.value
    }

    @Test func aWorkerThatCannotStartIsTriedAgainWithPauses() async throws {
        let host = try SimulatedHost()
        try host.machine.createDomain(DomainID(1)!)
        let (broker, task) = broker(host, command: ["/nonexistent/xenbackd"])
        try await host.attach(1)
        try await eventually("the pause") { await broker.phase(of: DomainID(1)!) == .backingOff }
        await broker.stop()
        await task.value
    }

    @Test func aDomainBeyondTheLimitGetsItsWorkerWhenAnotherLeaves() async throws {
        let host = try SimulatedHost()
        for number in 1...3 { try host.machine.createDomain(DomainID(UInt16(number))!) }
        let (broker, task) = broker(host, workerLimit: 2)
        let first = try await host.attach(1)
        try await host.attach(2)
        try await eventually("two workers") {
            let (one, two) = (await self.process(broker, 1), await self.process(broker, 2))
            return one != nil && two != nil
        }
        try await host.attach(3)
        try await eventually("the pause") { await broker.phase(of: DomainID(3)!) == .backingOff }
        #expect(await process(broker, 3) == nil)
        #expect(await broker.refused == [DomainID(3)!])
        try host.machine.destroyDomain(DomainID(1)!)
        try await host.dom0.store.remove("\(first)")
        try await eventually("its worker", within: .seconds(30)) { await self.process(broker, 3) != nil }
        #expect(await broker.refused.isEmpty)
        #expect(await process(broker, 2) != nil)
        await broker.stop()
        await task.value
    }

    @Test func aDestroyedDomainsWorkerEndsAndItsFilesGo() async throws {
        let host = try SimulatedHost()
        let domain = try #require(DomainID(1))
        try host.machine.createDomain(domain)
        let (broker, task) = broker(host)
        let path = try await host.attach(1)
        try await eventually("a worker") { await self.process(broker, 1) != nil }
        _ = try CrashMarks(host.run.marks(of: domain))
        // The worker is a process that ignores drains slowly: `sleep` dies of SIGTERM, as one that exits would.
        try host.machine.destroyDomain(domain)
        try await host.dom0.store.remove("\(path)")
        try await eventually("no worker") { await broker.workerCount == 0 }
        #expect(try host.run.domains().isEmpty)
        await broker.stop()
        await task.value
    }

    @Test func aDomainNumberUsedAgainGetsANewWorker() async throws {
        let host = try SimulatedHost()
        let domain = try #require(DomainID(1))
        try host.machine.createDomain(domain)
        let (broker, task) = broker(host)
        try await host.attach(1)
        try await eventually("a worker") { await self.process(broker, 1) != nil }
        let first = try #require(await process(broker, 1))
        let marks = try CrashMarks(host.run.marks(of: domain))
        try #require(marks.mark(for: "vbd3/51712")).crashes = 2
        try host.machine.destroyDomain(domain)
        try host.machine.createDomain(domain)
        try await eventually("another worker") {
            let now = await self.process(broker, 1)
            return now != nil && now != first
        }
        // The old domain's marks do not count against the new one.
        #expect(try CrashMarks(host.run.marks(of: domain)).inUse.isEmpty)
        await broker.stop()
        await task.value
    }

    /// A scan saw domain 1 dead; when its device is to be closed, another domain has the number and a device of that name.
    @Test func whatAnotherDomainHasByNowIsNotClosed() async throws {
        let host = try SimulatedHost()
        let domain = try #require(DomainID(1))
        try host.machine.createDomain(domain)
        let path = try await host.attach(1)
        let broker = unstartedBroker(host)
        await broker.saw(ListedDevice(path: path, state: .connected, online: true, isOurs: true))
        await broker.closeAbandoned(domain).value
        #expect(try await host.state(path) == .initialising)
        try host.machine.destroyDomain(domain)
        await broker.closeAbandoned(domain).value
        #expect(try await host.state(path) == .closed)
    }

    /// The toolstack destroys the domain when the directories are gone, and Xen gives it back when nobody maps its pages:
    /// neither waits for the other.
    @Test func inADriverDomainDirectoriesGoBeforeTheDomain() async throws {
        let host = try SimulatedHost()
        let (driver, guest) = (try #require(DomainID(2)), try #require(DomainID(3)))
        for domain in [driver, guest] { try host.machine.createDomain(domain) }
        let own = try host.machine.hypervisor(for: driver)
        let grant = try host.machine.hypervisor(for: guest).sharing.share(
            pageCount: 1,
            with: driver,
            access: .readWrite
        )
        let mapped = try own.grants.map(grant.references, of: guest, access: .readWrite)
        var disk = SimulatedToolstack.Disk(DevicePath(kind: .vbd3, domain: guest, index: 51712), params: "aio:/none")
        disk.backendDomain = driver
        try await SimulatedToolstack(host.dom0).create(disk)
        let path = "/local/domain/2/backend/vbd3/3/51712"
        try await host.dom0.store.write("\(path)/online", "0")
        try await host.dom0.store.write("\(path)/state", "6")
        try host.machine.destroyDomain(guest)
        let (broker, task) = broker(host, own: own)
        try await eventually("the directory is gone") { try await host.dom0.store.read("\(path)/state") == nil }
        #expect(try own.domains.identity(of: guest) != nil)
        withExtendedLifetime(mapped) {}
        await broker.stop()
        await task.value
    }

    /// It looks for the domain at every scan; a refusal is said once, and then rarely.
    @Test func troubleThatComesAndGoesIsSaidRarely() {
        var trouble = XenStoreTrouble()
        let begin = ContinuousClock.now
        let refusal = HypervisorFailure("look for domain 2", .permissionDenied)
        var lines: [String] = []
        for step in 0..<300 {
            let now = begin + .milliseconds(100) * step
            if let line = trouble.failed(refusal, now: now).line { lines.append(line) }
            if let line = trouble.over(now: now) { lines.append(line) }
        }
        let pair = [
            "refused for 0 s: look for domain 2: Permission denied; trying again",
            "XenStore and Xen answer again after 0 s",
        ]
        #expect(lines == pair + pair + pair)
        // Only silence is called a failure of XenStore.
        let silence = HypervisorFailure("list backend/vbd: xenstored does not answer", .timedOut)
        let first = trouble.failed(silence, now: begin + .seconds(60))
        #expect(first.line?.hasPrefix("XenStore fails for 0 s") == true)
        let second = trouble.failed(silence, now: begin + .seconds(65))
        #expect(second.line == nil && second.pause == first.pause * 2)
        let third = trouble.failed(silence, now: begin + .seconds(71)).line
        #expect(third?.hasPrefix("XenStore fails for 11 s") == true)
        #expect(trouble.over(now: begin + .seconds(72)) == "XenStore and Xen answer again after 12 s")
        #expect(trouble.failed(silence, now: begin + .seconds(90)).pause == first.pause)
    }

    private func refusal(_ broker: Broker, _ verb: some ControlVerb) async throws -> String {
        do {
            _ = try await broker.call(verb)
        } catch let error as ControlError {
            return error.description
        }
        return "not refused"
    }

    /// Where no worker runs nobody can report; an empty answer would say that all is well.
    @Test func aDeviceWithoutAWorkerIsShownWithTheReason() async throws {
        let host = try SimulatedHost()
        for number in 1...3 as ClosedRange<UInt16> { try host.machine.createDomain(DomainID(number)!) }
        let (broker, task) = broker(host, workerLimit: 0)
        let path = try await host.attach(1)
        try await eventually("the device is seen") { await broker.phase(of: DomainID(1)!) == .backingOff }
        await broker.exclude(path)
        try await eventually("it is closed") { try await host.state(path) == .closed }
        try await eventually("nobody is expected") { await !broker.expectsWorker(of: DomainID(1)!) }
        for device in ["xvd51712", "51712", "vbd3/51712", nil] {
            let reason = try await refusal(broker, Show(domain: "1", device: device))
            #expect(reason.contains("vbd3/1/51712 is closed: its worker crashed 3 times in a row"), "\(reason)")
            #expect(reason.contains("detach it and attach it again"), "\(reason)")
        }
        #expect(try await refusal(broker, BlockList(domain: "1")).contains("vbd3/1/51712 is closed"))
        #expect(try await broker.call(NetworkList(domain: "1")).cards.isEmpty)
        // No such device is another answer than no worker.
        #expect(try await refusal(broker, Show(domain: "1", device: "xvdz")).contains("no device 'xvdz'"))
        #expect(try await refusal(broker, Show(domain: "2", device: "xvda")).contains("domain 2 has no device 'xvda'"))
        #expect(try await broker.call(Show(domain: "2")).reports.isEmpty)
        await broker.stop()
        await task.value
    }

    @Test func aMillionWritesOfAWatchedKeyCostLittle() async throws {
        let host = try SimulatedHost()
        try host.machine.createDomain(DomainID(1)!)
        let (broker, task) = broker(host)
        let path = try await host.attach(1)
        try await eventually("a worker") { await self.process(broker, 1) != nil }
        let (memory, wakeUps) = (residentKiB(), host.loop.wakeUpCount)
        // A million take ten minutes in a debug build on a busy machine: FLOOD_WRITES=1000000.
        let writes = unsafe getenv("FLOOD_WRITES").flatMap { unsafe Int(String(cString: $0)) } ?? 50_000
        let begun = ContinuousClock.now
        for round in 0..<100 {
            try await host.dom0.store.perform { (store) throws(HypervisorFailure) in
                for _ in 0..<(writes / 100) { try store.write("\(path)/flood", "\(round)") }
            }
        }
        let time = ContinuousClock.now - begun
        let growth = residentKiB() - memory
        print("\(writes) writes in \(time): \(host.loop.wakeUpCount - wakeUps) wake-ups, \(growth) KiB more")
        #expect(growth < 16 << 10)
        // A scan or two per 20 ms, each a few wake-ups.
        #expect(Double(host.loop.wakeUpCount - wakeUps) < 50 * 20 * (time / .seconds(1)) + 1000)
        await broker.stop()
        await task.value
    }
}

/// This process's resident memory.
func residentKiB() -> Int {
    let status = (try? Files.contents(of: "/proc/self/statm", limit: 4096)) ?? []
    let fields = String(decoding: status, as: UTF8.self).split(separator: " ")
    return fields.count > 1 ? (Int(fields[1]) ?? 0) * 4 : 0
}

extension Broker {
    var workerCount: Int { workers.count }
    func process(of domain: DomainID) -> CInt? { workers[domain]?.process?.identifier }
    func expectsWorker(of domain: DomainID) -> Bool { workers[domain]?.machine.expectsWorker ?? false }
    func phase(of domain: DomainID) -> Supervision.Phase? { workers[domain]?.machine.phase }
    func saw(_ device: ListedDevice) { listing.devices[device.path] = device }
}
