// The whole service as processes: deaths, drains, adoption, crash attribution, while a guest works on its disk.

import BackendCore
import ControlProtocol
import FrontendDrivers
import HostIO
import Hypervisor
import SimulatedHypervisor
import SystemPackage
import Testing
import XenWire

@testable import BackendServer

#if canImport(Glibc)
    import Glibc
#endif

@Suite(.serialized, .timeLimit(.minutes(2)))
struct ServiceTests {
    @Test func aKilledWorkerIsReplacedUnderAWorkingGuest() async throws {
        let services = try Services()
        let guest = try await services.guest(1)
        let done = try await guest.working {
            for _ in 0..<3 {
                // Each of them serves something before it is killed.
                try await guest.hasWorked()
                let worker = try #require(services.worker(of: guest.domain))
                kill(worker, SIGKILL)
                let pause = try await eventually("a successor") {
                    let now = services.worker(of: guest.domain)
                    return now != nil && now != worker
                }
                print("SIGKILL to the successor's lock: \(pause)")
            }
        }
        print("\(done.rounds) rounds verified, longest pause \(done.longestPause)")
        #expect(try await services.host.state(guest.path) == .connected)
        await services.end()
    }

    @Test func theSpareWorkerTakesOver() async throws {
        let services = try Services()
        let guest = try await services.guest(1)
        let done = try await guest.working {
            for _ in 0..<2 {
                let spare = try await services.spare()
                kill(try #require(services.worker(of: guest.domain)), SIGKILL)
                try await eventually("the spare serves") { services.worker(of: guest.domain) == spare }
                #expect(!services.spares.contains(spare), "ps shows whom it serves")
            }
        }
        print("longest pause \(done.longestPause)")
        // One that dies is no loss, and one whom nobody needs ends.
        let dead = try await services.spare()
        kill(dead, SIGKILL)
        kill(try #require(services.worker(of: guest.domain)), SIGKILL)
        try await eventually("another worker") { services.worker(of: guest.domain).map { $0 != dead } ?? false }
        let last = try await services.spare()
        #expect(try await services.endBroker(SIGKILL) == .signalled(SIGKILL))
        try await eventually("the spare has ended") { !services.spares.contains(last) }
        try services.startBroker()
        _ = try await services.spare()
        await services.end()
    }

    @Test func withoutASpareWorkersStartWhenNeeded() async throws {
        let services = try Services(settings: "spare-worker = false")
        let guest = try await services.guest(1)
        // A spare would have been started with the first worker, and again after each death.
        for _ in 0..<3 {
            let worker = try #require(services.worker(of: guest.domain))
            kill(worker, SIGKILL)
            try await eventually("another worker") {
                #expect(services.spares.isEmpty)
                return services.worker(of: guest.domain).map { $0 != worker } ?? false
            }
            _ = try await guest.work(until: .now, atLeast: 5)
        }
        #expect(services.spares.isEmpty)
        await services.end()
    }

    @Test func aDeadBrokerDisturbsNobodyAndTheNextOneAdopts() async throws {
        let services = try Services()
        let guest = try await services.guest(1)
        let worker = try #require(services.worker(of: guest.domain))
        let done = try await guest.working {
            #expect(try await services.endBroker(SIGKILL) == .signalled(SIGKILL))
            try await guest.hasWorked()
            #expect(services.worker(of: guest.domain) == worker)
            try services.startBroker()
            let devices = try await services.call(List()).devices
            #expect(devices.map(\.worker) == [Int(worker)])
            #expect(devices.map(\.backendState) == ["connected"])
        }
        print("longest pause without a broker and over its start: \(done.longestPause)")
        #expect(services.worker(of: guest.domain) == worker)
        // The adopted worker is watched: its death is noticed.
        kill(worker, SIGKILL)
        try await eventually("a successor") {
            services.worker(of: guest.domain).map { $0 != worker } ?? false
        }
        await services.end()
    }

    @Test func aStopDrainsAndTheNextStartTakesUp() async throws {
        let services = try Services()
        let guest = try await services.guest(1)
        let done = try await guest.working {
            try await guest.hasWorked()
            #expect(try await services.endBroker(SIGTERM) == .exited(0))
            #expect(services.worker(of: guest.domain) == nil)
            #expect(try await services.host.state(guest.path) == .connected)
            try services.startBroker()
        }
        print("\(done.rounds) rounds over a restart of the service, longest pause \(done.longestPause)")
        await services.end()
    }

    @Test func anotherBuildReplacesTheWorkers() async throws {
        let services = try Services()
        let guest = try await services.guest(1)
        let worker = try #require(services.worker(of: guest.domain))
        // The same program under another inode, as an upgrade leaves it.
        let copy = services.host.directory.appending("xenback").string
        #expect(unsafe system("cp '\(Services.xenback)' '\(copy)'") == 0)
        defer { _ = unsafe unlink(copy) }
        _ = try await guest.working {
            #expect(try await services.endBroker(SIGKILL) == .signalled(SIGKILL))
            try services.startBroker(program: copy)
            try await eventually("a worker of the new build", within: .seconds(40)) {
                services.worker(of: guest.domain).map { $0 != worker } ?? false
            }
        }
        await services.end()
    }

    @Test func threeCrashesCloseTheDeviceAndTheOthersAreServed() async throws {
        let services = try Services(poison: "vbd3/51728")
        let guest = try await services.guest(1)
        let store = services.host.dom0.store
        let done = try await guest.working {
            let poisoned = try await services.host.attach(1, 51728)
            try await eventually("the poisoned device is closed") {
                try await services.host.state(poisoned) == .closed
            }
            #expect(try await store.read(poisoned.errorNode)?.contains("3 times in a row") == true)
        }
        print(
            "\(done.rounds) rounds beside a device that killed the worker three times, longest pause \(done.longestPause)"
        )
        // Nothing kills the worker any more.
        let worker = try #require(services.worker(of: guest.domain))
        _ = try await guest.work(until: .now, atLeast: 50)
        #expect(services.worker(of: guest.domain) == worker)
        #expect(try await services.host.state(guest.path) == .connected)
        await services.end()
    }

    @Test func aDestroyedDomainLeavesNothing() async throws {
        let services = try Services()
        let guest = try await services.guest(1)
        _ = try await guest.work(until: .now + .milliseconds(200))
        try services.host.machine.destroyDomain(guest.domain)
        // As `xl destroy` does (libxl_device.c, `force`).
        let nodes = DeviceNodes(own: .initial, path: guest.path)
        let store = services.host.dom0.store
        _ = try await store.transaction { (store) throws(HypervisorFailure) in
            try nodes.requestClose(store, force: true)
        }
        try await eventually("closed") { try await services.host.state(guest.path) == .closed }
        try await store.transaction { (store) throws(HypervisorFailure) in try nodes.remove(from: store) }
        try await eventually("no worker, no files") { try services.host.run.domains().isEmpty }
        #expect(services.worker(of: guest.domain) == nil)
        #expect(try Files.names(in: services.host.run.journals).isEmpty)
        await services.end()
    }

    @Test func oneDomainsWorkerDiesAndTheOtherDomainDoesNotNotice() async throws {
        let services = try Services()
        let (one, two) = (try await services.guest(1), try await services.guest(2))
        let other = try #require(services.worker(of: two.domain))
        var untouched = Guest.Work()
        let killed = try await one.working {
            untouched = try await two.working {
                try await one.hasWorked()
                kill(try #require(services.worker(of: one.domain)), SIGKILL)
                try await one.hasWorked()
            }
        }
        print("longest pause: killed \(killed.longestPause), other \(untouched.longestPause)")
        #expect(services.worker(of: two.domain) == other)
        await services.end()
    }

    @Test func aSilentXenStoreStopsNoData() async throws {
        let services = try Services()
        let guest = try await services.guest(1)
        let worker = services.worker(of: guest.domain)
        services.host.machine.silenceStore(for: .seconds(10))
        let done = try await guest.work(until: .now + .seconds(11))
        print("\(done.rounds) rounds while XenStore was silent for ten seconds, longest pause \(done.longestPause)")
        #expect(done.longestPause < .seconds(3))
        #expect(services.worker(of: guest.domain) == worker)
        // And it is well afterwards.
        #expect(try await services.call(List()).devices.map(\.backendState) == ["connected"])
        await services.end()
    }

    /// A guest's number goes to the next guest before its worker has gone, and no broker is there to end it.
    @Test func aWorkerDoesNotServeTheNextDomainOfItsNumber() async throws {
        let services = try Services()
        let guest = try await services.guest(1)
        _ = try await guest.work(until: .now, atLeast: 1)
        let worker = try #require(services.worker(of: guest.domain))
        try #require(services.broker).signal(SIGSTOP)
        defer { services.broker?.signal(SIGCONT) }
        let (host, store) = (services.host, services.host.dom0.store)
        try host.machine.destroyDomain(guest.domain)
        try await store.transaction { (store) throws(HypervisorFailure) in
            try store.remove("backend/vbd/1")
            try store.remove("/local/domain/1")
        }
        try host.machine.createDomain(guest.domain)
        let image = try services.makeImage("next.img", megabytes: 1)
        let next = try await host.attach(1, target: image.string)
        try await eventually("the worker leaves") { services.worker(of: guest.domain) == nil }
        #expect(try await host.state(next) == .initialising)
        #expect(try await store.read("\(next)/hotplug-status") == nil)
        services.broker?.signal(SIGCONT)
        try await eventually("a worker of its own") {
            let state = try await host.state(next)
            return state == .initWait || state == .initialised
        }
        #expect(services.worker(of: guest.domain).map { $0 != worker } ?? false)
        await services.end()
    }

    @Test func detachingEndsDeviceAndWorker() async throws {
        let services = try Services()
        let guest = try await services.guest(1)
        let worker = services.worker(of: guest.domain)
        #expect(try await services.call(BlockList(domain: "1")).disks.map(\.device.node) == ["xvda"])
        #expect(try await services.call(Show(domain: "1", device: "xvda")).reports.count == 1)
        async let closed: Void = guest.frontend.close()
        _ = try await services.call(BlockDetach(domain: "1", device: "xvda"))
        try? await closed
        #expect(try await services.host.dom0.store.directory("\(guest.path)") == nil)
        try await eventually("the worker leaves", within: .seconds(20)) {
            services.worker(of: guest.domain) == nil
        }
        #expect(worker != nil)
        await services.end()
    }

    @Test func aVerbWaitsForTheSuccessorOfAKilledWorker() async throws {
        let services = try Services()
        let guest = try await services.guest(1)
        _ = try await guest.work(until: .now, atLeast: 1)
        for round in 0..<3 {
            kill(try #require(services.worker(of: guest.domain)), SIGKILL)
            // Sometimes before the broker has noticed.
            if round > 0 { try await Task.sleep(for: .milliseconds(3 * round)) }
            let reports = try await services.call(Show(domain: "1", device: "xvda")).reports
            #expect(reports.count == 1, "round \(round)")
            #expect(try await services.call(BlockResize(domain: "1", device: "xvda")).sectors == 32768)
            _ = try await guest.work(until: .now, atLeast: 1)
        }
        await services.end()
    }

    @Test func aDiskThatNobodyWouldServeIsRefusedAtOnce() async throws {
        let services = try Services()
        try services.host.machine.createDomain(DomainID(1)!)
        _ = try await services.call(Ping())
        let began = ContinuousClock.now
        let error = await #expect(throws: ControlError.self) {
            try await services.call(
                BlockAttach(domain: "1", disk: "vdev=xvdb,format=raw,script=block-iscsi,target=iqn.x")
            )
        }
        #expect(error?.description.contains("block-iscsi is not ours") ?? false)
        #expect(ContinuousClock.now - began < .seconds(5))
        #expect(try await services.host.dom0.store.directory("/local/domain/1/device/vbd") == nil)
        await services.end()
    }

    /// In a debug build with everything in it; the bound is for a leak or a table of the wrong size, not for a page more.
    @Test func brokerAndWorkerAreSmall() async throws {
        let services = try Services()
        let guest = try await services.guest(1)
        _ = try await guest.work(until: .now, atLeast: 200)
        let processes = [("broker", services.broker?.identifier), ("worker", services.worker(of: guest.domain))]
        for (name, process) in processes {
            let process = try #require(process)
            let memory = try #require(anonymousKiB(of: process))
            print("the \(name) has \(memory) KiB of its own")
            #expect(memory > 0 && memory < 64 << 10, "the \(name) has \(memory) KiB")
        }
        await services.end()
    }

    /// What a process has for itself alone: `RssAnon` of /proc/PID/status (proc(5)).
    private func anonymousKiB(of process: CInt) -> Int? {
        let text = (try? Files.contents(of: FilePath("/proc/\(process)/status"), limit: 65536)) ?? []
        let line = String(decoding: text, as: UTF8.self).split(separator: "\n").first { $0.hasPrefix("RssAnon:") }
        return line?.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) }
    }
}
