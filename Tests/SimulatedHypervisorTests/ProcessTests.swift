// Other processes on the machine: what they share with us, and what their death leaves behind.

internal import Glibc
internal import Hypervisor
internal import SharedRing
internal import SimulatedHypervisor
internal import SystemPackage
internal import TestSupport
internal import Testing
internal import XenWire

/// A path for a socket of this test alone.
private func socketPath(_ name: String) -> String { "/tmp/xenback-test-\(getpid())-\(name).sock" }

@Suite struct ProcessTests {
    @Test func theSameCallsWorkOverTheSocket() async throws {
        let machine = try machineWithGuests()
        let path = socketPath("calls")
        try machine.listen(at: path)
        defer { _ = unsafe unlink(path) }
        let remote = try SimulatedHypervisor(attaching: path, as: .initial)
        let guest = try machine.hypervisor(for: guestDomain)
        #expect(remote.domains.own == .initial)
        #expect(try remote.domains.identity(of: guestDomain) == guest.domains.identity(of: guestDomain))
        let nobody = failure { () throws(HypervisorFailure) in
            _ = try SimulatedHypervisor(attaching: path, as: DomainID(99)!)
        }
        #expect(nobody == .noSuchProcess)
        let nowhere = failure { () throws(HypervisorFailure) in
            _ = try SimulatedHypervisor(attaching: path + "x", as: .initial)
        }
        #expect(nowhere == .noSuchFileOrDirectory)
    }

    /// The heart of crash transparency: another process serves, is killed, and its successor goes on.
    @Test func aKilledProcessGivesItsPortItsMappingsAndItsTransactionBack() async throws {
        let machine = try machineWithGuests()
        let path = socketPath("kill")
        try machine.listen(at: path)
        defer { _ = unsafe unlink(path) }
        let frontend = try machine.hypervisor(for: guestDomain)
        let events = try frontend.openEventChannels()
        let port = try events.allocate(for: .initial)
        let grant = try frontend.sharing.share(pageCount: 1, with: .initial, access: .readWrite)
        let (reference, number) = (grant.references[0].rawValue, port.rawValue)

        await #expect(processExitsWith: .signal(SIGKILL)) {
            [path = path as String, reference = reference as UInt32, number = number as UInt32] in
            let backend = try SimulatedHypervisor(attaching: path, as: .initial)
            let mapped = try backend.grants.map([GrantReference(reference)], of: guestDomain, access: .readWrite)
            let events = try backend.openEventChannels()
            let bound = try events.bind(to: EventChannelPort(number), of: guestDomain)
            _ = try await backend.store.watch("/", raising: WatchSignal())
            try await backend.store.write("/served-by", "\(getpid())")
            mapped.storeRelease(0xFEED, at: 128)
            events.notify(bound)
            try await backend.store.transaction { (store) throws(HypervisorFailure) in
                try store.write("/never", "")
                kill(getpid(), SIGKILL)
                while true { pause() }
            }
        }

        #expect(grant.pages.loadAcquire(at: 128) == 0xFEED)
        #expect(events.takePending() == port)
        events.unmask(port)
        // The parent knows of the death; the kernel may still hold the port.
        let successor = try machine.hypervisor(for: .initial)
        let successorEvents = try successor.openEventChannels()
        var free: EventChannelPort?
        _ = await eventually {
            free = try? successorEvents.bind(to: port, of: guestDomain)
            return free != nil
        }
        let bound = try #require(free)
        #expect(successorEvents.takePending() == bound)
        successorEvents.notify(bound)
        #expect(events.takePending() == port)
        #expect(try await successor.store.read("/never") == nil)
        #expect(try await successor.store.read("/served-by") != nil)
        let released = await eventually { machine.usage(of: guestDomain)?.pagesMappedByOthers == 0 }
        #expect(released)
        let clean = await eventually {
            let usage = machine.usage(of: .initial)
            return usage?.ports == 1 && usage?.watches == 0 && usage?.transactions == 0 && usage?.connections == 3
        }
        #expect(clean, "\(machine.usage(of: .initial).debugDescription)")
    }

    @Test func aFrontendProcessThatDiesEndsItsGrantsAndPorts() async throws {
        let machine = try machineWithGuests()
        let path = socketPath("frontend")
        try machine.listen(at: path)
        defer { _ = unsafe unlink(path) }
        await #expect(processExitsWith: .signal(SIGKILL)) { [path = path as String] in
            let frontend = try SimulatedHypervisor(attaching: path, as: guestDomain)
            let grant = try frontend.sharing.share(pageCount: 2, with: .initial, access: .readWrite)
            let events = try frontend.openEventChannels()
            let port = try events.allocate(for: .initial)
            try await frontend.store.write("data/port", "\(port.rawValue)")
            try await frontend.store.write("data/ref", "\(grant.references[1].rawValue)")
            kill(getpid(), SIGKILL)
            while true { pause() }
        }
        let clean = await eventually {
            let usage = machine.usage(of: guestDomain)
            return usage?.grantedPages == 0 && usage?.ports == 0
        }
        #expect(clean)
        let backend = try machine.hypervisor(for: .initial)
        let text = try #require(try await backend.store.read("/local/domain/7/data/ref"))
        let reference = GrantReference(try #require(UInt32(decimal: text)))
        let result = failure { () throws(HypervisorFailure) in
            _ = try backend.grants.map([reference], of: guestDomain, access: .readOnly)
        }
        #expect(result == .invalidArgument)
    }

    @Test func whenTheMachineGoesCallsFailAndNothingHangs() async throws {
        var machine: SimulatedMachine? = try machineWithGuests()
        let backend = try #require(try machine?.hypervisor(for: .initial))
        machine = nil
        let store = await asyncFailure { () async throws(HypervisorFailure) in _ = try await backend.store.read("/") }
        #expect(store != nil)
        let grants = failure { () throws(HypervisorFailure) in
            _ = try backend.sharing.share(pageCount: 1, with: guestDomain, access: .readOnly)
        }
        #expect(grants != nil)
    }
}
