// Fault injection: each effect does what it says, to the calls it names, as often as it says.

internal import Hypervisor
internal import SharedRing
internal import SimulatedHypervisor
internal import SystemPackage
internal import TestSupport
internal import Testing
internal import XenWire

@Suite struct FaultTests {
    @Test func aRuleSkipsHitsAndIsUsedUp() async throws {
        let machine = try machineWithGuests()
        let backend = try machine.hypervisor(for: .initial)
        let frontend = try machine.hypervisor(for: guestDomain)
        machine.setFaults(FaultPlan([.init(.allocate, by: .initial, skip: 1, count: 2, .fail(.noMemory))]))
        let events = try backend.openEventChannels()
        let results = (0..<5).map { _ in
            failure { () throws(HypervisorFailure) in _ = try events.allocate(for: guestDomain) }
        }
        #expect(results == [nil, .noMemory, .noMemory, nil, nil])
        machine.setFaults(FaultPlan([.init(.allocate, by: .initial, count: .max, .fail(.noMemory))]))
        _ = try frontend.openEventChannels().allocate(for: .initial)
        let other = failure { () throws(HypervisorFailure) in _ = try events.allocate(for: guestDomain) }
        #expect(other == .noMemory)
    }

    /// Every call that has a protocol's call behind it can be made to fail, and works again afterwards.
    @Test(arguments: [SimulatedCall.map, .share, .copy, .bind, .identity, .storeRead, .storeWrite, .storeWatch])
    func everyCallCanFail(call: SimulatedCall) async throws {
        let machine = try machineWithGuests()
        let backend = try machine.hypervisor(for: .initial)
        let frontend = try machine.hypervisor(for: guestDomain)
        let grant = try frontend.sharing.share(pageCount: 1, with: .initial, access: .readWrite)
        let port = try frontend.openEventChannels()
        let offered = try port.allocate(for: .initial)
        let memory = try PrivatePages(byteCount: 4096)
        let attempt: () async throws(HypervisorFailure) -> Void = { () async throws(HypervisorFailure) in
            switch call {
            case .map: _ = try backend.grants.map(grant.references, of: guestDomain, access: .readOnly)
            case .share: _ = try backend.sharing.share(pageCount: 1, with: guestDomain, access: .readOnly)
            case .copy:
                var batch = GrantCopyBatch(capacity: 1)
                batch.add(
                    reference: grant.references[0],
                    pageOffset: 0,
                    byteCount: 1,
                    intoGrant: false,
                    pages: memory,
                    privateOffset: 0
                )
                try backend.grants.copy(&batch, with: guestDomain)
            case .bind:
                let events = try backend.openEventChannels()
                // A set that goes as it is keeps its port for a while.
                events.unbind(try events.bind(to: offered, of: guestDomain))
            case .identity: _ = try backend.domains.identity(of: guestDomain)
            case .storeRead: _ = try await backend.store.read("/x")
            case .storeWrite: try await backend.store.write("/x", "")
            default: await (try backend.store.watch("/x", raising: WatchSignal())).cancel()
            }
        }
        try backend.inject(FaultPlan([FaultPlan.Rule(call, .fail(.noMemory))]))
        #expect(await asyncFailure(attempt) == .noMemory)
        #expect(await asyncFailure(attempt) == nil)
        try backend.inject(FaultPlan([FaultPlan.Rule(call, count: .max, .fail(.noMemory))]))
        #expect(await asyncFailure(attempt) == .noMemory)
        try backend.clearFaults()
        #expect(await asyncFailure(attempt) == nil)
    }

    @Test func copiesGetTheStatusOrdered() throws {
        let machine = try machineWithGuests()
        let backend = try machine.hypervisor(for: .initial)
        let frontend = try machine.hypervisor(for: guestDomain)
        let grant = try frontend.sharing.share(pageCount: 1, with: .initial, access: .readWrite)
        let memory = try PrivatePages(byteCount: 4096)
        var batch = GrantCopyBatch(capacity: 1)
        batch.add(
            reference: grant.references[0],
            pageOffset: 0,
            byteCount: 1,
            intoGrant: false,
            pages: memory,
            privateOffset: 0
        )
        // GNTST_eagain
        machine.setFaults(FaultPlan([.init(.copy, .copyStatus(-12))]))
        try backend.grants.copy(&batch, with: guestDomain)
        #expect(batch.status(of: 0) == GrantStatus(-12))
        try backend.grants.copy(&batch, with: guestDomain)
        #expect(batch.status(of: 0) == .okay)
    }

    @Test func aDomainDiesBetweenTwoCalls() async throws {
        let machine = try machineWithGuests()
        let backend = try machine.hypervisor(for: .initial)
        let frontend = try machine.hypervisor(for: guestDomain)
        let grant = try frontend.sharing.share(pageCount: 1, with: .initial, access: .readWrite)
        machine.setFaults(FaultPlan([.init(.map, .destroy(guestDomain))]))
        let result = failure { () throws(HypervisorFailure) in
            _ = try backend.grants.map(grant.references, of: guestDomain, access: .readOnly)
        }
        #expect(result == .invalidArgument)
        #expect(try backend.domains.identity(of: guestDomain) == nil)
        let store = await asyncFailure { () async throws(HypervisorFailure) in
            try await frontend.store.write("data/x", "")
        }
        #expect(store == .noSuchProcess)
    }

    @Test func delaysHoldOneConnectionOnly() async throws {
        let machine = try machineWithGuests()
        let slow = try machine.hypervisor(for: .initial)
        let quick = try machine.hypervisor(for: .initial)
        machine.setFaults(FaultPlan([.init(.storeWrite, .delay(milliseconds: 1500))]))
        let start = ContinuousClock.now
        async let held: Void = slow.store.write("/slow", "")
        try await Task.sleep(for: .milliseconds(50))
        try await quick.store.write("/quick", "")
        #expect(ContinuousClock.now - start < .milliseconds(1400))
        try await held
        #expect(ContinuousClock.now - start >= .milliseconds(1500))
    }

    @Test func aSilentStoreAnswersLaterAndOthersGoOn() async throws {
        let machine = try machineWithGuests()
        let backend = try machine.hypervisor(for: .initial)
        machine.silenceStore(for: .milliseconds(1000))
        let start = ContinuousClock.now
        async let read = backend.store.read("/local/domain/7/domid")
        #expect(try backend.domains.identity(of: guestDomain) != nil)
        #expect(ContinuousClock.now - start < .milliseconds(900))
        #expect(try await read == "7")
        #expect(ContinuousClock.now - start >= .milliseconds(1000))
    }
}
