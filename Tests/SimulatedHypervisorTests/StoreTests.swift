// XenStore through the protocol: permissions, watches, transactions that conflict, quotas.

internal import Hypervisor
internal import SimulatedHypervisor
internal import SystemPackage
internal import TestSupport
internal import Testing
internal import XenWire

@Suite struct StoreTests {
    @Test func valuesPassBetweenDomainsAsPermissionsAllow() async throws {
        let machine = try machineWithGuests()
        let backend = try machine.hypervisor(for: .initial).store
        let frontend = try machine.hypervisor(for: guestDomain).store
        let path = "/local/domain/7/device/vbd/51712/state"
        try await backend.write(path, "1")
        // The parent "device" may be read by the guest, and so may what is created below it.
        #expect(try await frontend.read("device/vbd/51712/state") == "1")
        let refused = await asyncFailure { () async throws(HypervisorFailure) in try await frontend.write(path, "3") }
        #expect(refused == .permissionDenied)
        try await backend.perform { (store) throws(HypervisorFailure) in
            try store.setPermissions(path, [XenStorePermission(guestDomain, .none)])
        }
        try await frontend.write("device/vbd/51712/state", "3")
        #expect(try await backend.read(path) == "3")
        #expect(try await backend.directory("/local/domain/7/device/vbd") == ["51712"])
        #expect(try await machine.hypervisor(for: otherDomain).store.read(path) == nil)
        try await backend.remove("/local/domain/7/device/vbd/nothing")
        let permissions = try await backend.perform { (store) throws(HypervisorFailure) in
            try store.permissions(path)
        }
        #expect(permissions == [XenStorePermission(guestDomain, .none)])
    }

    @Test func aWatchFiresAtOnceThenForItsNodeAndBelow() async throws {
        let machine = try machineWithGuests()
        let store = try machine.hypervisor(for: .initial).store
        let raises = Raises()
        let watch = try await store.watch("/a/b", raising: raises.signal)
        #expect(await raises.reaches(1))
        try await store.write("/a/b/c/d", "")
        #expect(await raises.reaches(2))
        try await store.write("/a/bc", "")
        try await store.write("/a/b", "x")
        #expect(await raises.reaches(3))
        await watch.cancel()
        try await store.write("/a/b", "y")
        #expect(machine.usage(of: .initial)?.watches == 0)
        try await Task.sleep(for: .milliseconds(20))
        #expect(raises.count == 3)
    }

    @Test func aWatchFiresWhenAnAncestorGoes() async throws {
        let machine = try machineWithGuests()
        let store = try machine.hypervisor(for: .initial).store
        try await store.write("/a/b/c", "")
        let raises = Raises()
        _ = try await store.watch("/a/b/c", raising: raises.signal)
        #expect(await raises.reaches(1))
        try await store.remove("/a")
        #expect(await raises.reaches(2))
    }

    @Test func aWatchTellsNothingOfWhatItsOwnerMayNotRead() async throws {
        let machine = try machineWithGuests()
        let backend = try machine.hypervisor(for: .initial).store
        let frontend = try machine.hypervisor(for: guestDomain).store
        let raises = Raises()
        _ = try await frontend.watch("/secret", raising: raises.signal)
        #expect(await raises.reaches(1))
        try await backend.write("/secret/key", "")
        try await Task.sleep(for: .milliseconds(20))
        #expect(raises.count == 1)
    }

    @Test func aMillionChangesAreOnePendingEvent() async throws {
        let machine = try machineWithGuests()
        let store = try machine.hypervisor(for: .initial).store
        let raises = Raises()
        _ = try await store.watch("/key", raising: raises.signal)
        #expect(await raises.reaches(1))
        // One closure occupies the store's thread, so nothing is delivered before it ends.
        try await store.perform { (store) throws(HypervisorFailure) in
            for number in 0..<1000 { try store.write("/key", "\(number)") }
        }
        #expect(await raises.reaches(2))
        try await Task.sleep(for: .milliseconds(20))
        #expect(raises.count == 2)
    }

    @Test func domainsComeAndGoVisibly() async throws {
        let machine = try machineWithGuests()
        let store = try machine.hypervisor(for: .initial).store
        let (introduced, released, hidden) = (Raises(), Raises(), Raises())
        _ = try await store.watch("@introduceDomain", raising: introduced.signal)
        _ = try await store.watch("@releaseDomain", raising: released.signal)
        _ = try await machine.hypervisor(for: otherDomain).store.watch("@releaseDomain", raising: hidden.signal)
        #expect(await introduced.reaches(1))
        #expect(await released.reaches(1))
        try machine.createDomain(DomainID(9)!)
        #expect(await introduced.reaches(2))
        #expect(released.count == 1)
        try machine.destroyDomain(DomainID(9)!)
        #expect(await released.reaches(2))
        #expect(hidden.count <= 1)
    }

    @Test func conflictingTransactionsAreRunAgainAndLoseNothing() async throws {
        let machine = try machineWithGuests()
        try await machine.hypervisor(for: .initial).store.write("/counter", "0")
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<4 {
                let store = try machine.hypervisor(for: .initial).store
                group.addTask {
                    for _ in 0..<25 {
                        try await store.transaction { (store) throws(HypervisorFailure) in
                            let value = Int(try store.read("/counter") ?? "") ?? 0
                            try store.write("/counter", "\(value + 1)")
                        }
                    }
                }
            }
            try await group.waitForAll()
        }
        #expect(try await machine.hypervisor(for: .initial).store.read("/counter") == "100")
        #expect(await eventually { machine.usage(of: .initial)?.transactions == 0 })
    }

    @Test func aTransactionThatAlwaysConflictsEndsWithEAGAIN() async throws {
        let machine = try machineWithGuests()
        let store = try machine.hypervisor(for: .initial).store
        machine.setFaults(
            FaultPlan([.init(.storeTransactionEnd, count: .max, .fail(.resourceTemporarilyUnavailable))])
        )
        let result = await asyncFailure { () async throws(HypervisorFailure) in
            try await store.transaction { (store) throws(HypervisorFailure) in try store.write("/x", "") }
        }
        #expect(result == .resourceTemporarilyUnavailable)
    }

    @Test func aThrowingTransactionChangesNothing() async throws {
        let machine = try machineWithGuests()
        let store = try machine.hypervisor(for: .initial).store
        let result = await asyncFailure { () async throws(HypervisorFailure) in
            try await store.transaction { (store) throws(HypervisorFailure) in
                try store.write("/x", "")
                throw HypervisorFailure("test", .timedOut)
            }
        }
        #expect(result == .timedOut)
        #expect(try await store.read("/x") == nil)
        #expect(machine.usage(of: .initial)?.transactions == 0)
    }

    @Test func quotasOfWatchesAndTransactions() async throws {
        var quota = XenStoreQuota()
        quota.watchesPerDomain = 2
        quota.transactionsPerDomain = 0
        let machine = try machineWithGuests(quota: quota)
        let store = try machine.hypervisor(for: guestDomain).store
        let signal = WatchSignal()
        _ = try await store.watch("a", raising: signal)
        _ = try await store.watch("b", raising: signal)
        let third = await asyncFailure { () async throws(HypervisorFailure) in
            _ = try await store.watch("c", raising: signal)
        }
        #expect(third == .argListTooLong)
        let transaction = await asyncFailure { () async throws(HypervisorFailure) in
            try await store.transaction { (_) throws(HypervisorFailure) in }
        }
        #expect(transaction == .noSpace)
        let bad = await asyncFailure { () async throws(HypervisorFailure) in _ = try await store.read("a//b") }
        #expect(bad == .invalidArgument)
    }
}
