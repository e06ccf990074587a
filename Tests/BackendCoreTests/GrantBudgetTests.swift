// How many pages of guests may be mapped: a guest's limit, the host's over several workers, the kernel's mappings.

import BackendCore
import HostIO
import Hypervisor
import SimulatedHypervisor
import Synchronization
import SystemPackage
import TestSupport
import Testing
import XenWire

private let first = DomainID(1)!
private let second = DomainID(2)!

private func limits(_ guest: Int, host: Int = 1 << 20, mappings: Int = 1 << 20) -> GrantBudget.Limits {
    GrantBudget.Limits(guestPages: guest, hostPages: host, mappings: mappings)
}

/// Takes one page after the other until it is refused.
private func fill(_ budget: GrantBudget, _ use: GrantBudget.Use) -> (taken: Int, GrantBudget.Refusal) {
    var taken = 0
    while true {
        do throws(GrantBudget.Refusal) { try budget.take(1, for: use) } catch { return (taken, error) }
        taken += 1
    }
}

@Suite struct GrantBudgetTests {
    private let path: FilePath

    init() throws { path = try FilePath.temporary().appending("grants") }

    /// Another process's view of the file.
    private func shares() throws -> GrantShares { try GrantShares(path) }

    @Test func dataLeavesRoomForRings() throws {
        let told = Mutex<[String]>([])
        let budget = GrantBudget(of: first, limits(800), shares: try shares()) { line in
            told.withLock { $0.append(line) }
        }
        let (data, refusal) = fill(budget, .data)
        #expect(data == 700)
        #expect(refusal.description.contains("guest-pages"))
        #expect(fill(budget, .ring).taken == 100)
        #expect(budget.pages == 800)
        // A frontend can be refused for ever, but not be heard of for ever.
        #expect(told.withLock { $0.count } == 1)
        budget.give(1)
        try budget.take(1, for: .ring)
    }

    @Test func aProcessHasOnlySoManyMappings() throws {
        let budget = GrantBudget(of: first, limits(1 << 20, mappings: 80), shares: try shares())
        let (data, refusal) = fill(budget, .data)
        #expect(data == 70)
        #expect(refusal.description.contains("vm.max_map_count"))
        #expect(budget.mappings == 70)
        // A ring of many pages is one mapping.
        try budget.take(16, for: .ring)
        #expect(budget.mappings == 71 && budget.pages == 86)
        #expect(GrantBudget.Limits.mappings(ofKernelLimit: 65530) == 65530 - 4096)
        #expect(GrantBudget.Limits.mappingsHere > 0)
    }

    @Test func theHostsLimitHoldsOverAllWorkers() throws {
        let one = GrantBudget(of: first, limits(1 << 20, host: 8000), shares: try shares())
        let two = GrantBudget(of: second, limits(1 << 20, host: 8000), shares: try shares())
        for _ in 0..<3000 { try one.take(1, for: .data) }
        let (data, refusal) = fill(two, .data)
        #expect(refusal.description.contains("host-pages"))
        // Each has set aside less than a chunk that it does not use.
        #expect(one.pages + two.pages <= 7000 && one.pages + two.pages > 7000 - 2 * 64)
        // Rings go on.
        #expect(fill(two, .ring).taken >= 1000 - 2 * 64)
        #expect(try shares().total <= 8000)
        #expect(data > 0)
        // What one gives back the other may have.
        for _ in 0..<3000 { one.give(1) }
        #expect(try shares()[first] < 3 * 64)
        try two.take(500, for: .ring)
    }

    @Test func aDeadWorkersShareGoesToItsSuccessor() throws {
        do {
            let victim = GrantBudget(of: first, limits(1 << 20, host: 4096), shares: try shares())
            _ = fill(victim, .ring)
        }
        // Nobody gave anything back.
        #expect(try shares()[first] == 4096)
        let neighbour = GrantBudget(of: second, limits(1 << 20, host: 4096), shares: try shares())
        #expect(fill(neighbour, .ring).taken == 0)
        let successor = GrantBudget(of: first, limits(1 << 20, host: 4096), shares: try shares())
        #expect(try shares()[first] == 0)
        try neighbour.take(1000, for: .ring)
        try successor.take(1000, for: .ring)
    }

    /// Whoever takes the last pages at the same time: never more than there are.
    @Test func twoWorkersNeverHaveMoreThanThereIs() async throws {
        let budgets = try [first, second].map { GrantBudget(of: $0, limits(1 << 20, host: 2000), shares: try shares()) }
        for round in 0..<20 {
            await withTaskGroup(of: Void.self) { group in
                for budget in budgets {
                    group.addTask {
                        var refusals = 0
                        while refusals < 20 {
                            do { try budget.take(1 + round * 7, for: .ring) } catch { refusals += 1 }
                        }
                    }
                }
            }
            let sum = budgets.reduce(0) { $0 + $1.pages }
            // Both may have been refused at the border, each with a chunk and a mapping to go.
            #expect(sum <= 2000 && sum > 2000 - 2 * (64 + 134), "round \(round)")
            for budget in budgets {
                for _ in 0..<budget.mappings { budget.give(1 + round * 7) }
            }
            #expect(budgets.allSatisfy { $0.pages == 0 })
        }
    }

    @Test func mappingsAreCountedAsLongAsTheyLast() throws {
        let machine = try SimulatedMachine()
        try machine.createDomain(first)
        let budget = GrantBudget(of: first, limits(16), shares: try shares())
        let host = BudgetedHypervisor(try machine.hypervisor(for: .initial), budget)
        let grant = try machine.hypervisor(for: first).sharing.share(pageCount: 10, with: .initial, access: .readWrite)
        var pages: (any AnyObject)? = try host.grants.map(grant.references, of: first, access: .readWrite)
        #expect(budget.pages == 10 && budget.mappings == 1)
        do throws(HypervisorFailure) {
            _ = try host.grants.map(grant.references, of: first, access: .readWrite)
            Issue.record("20 pages of 16")
        } catch {
            #expect(error.errno == GrantBudget.refused)
        }
        // A bad reference takes nothing.
        #expect(throws: HypervisorFailure.self) {
            try host.grants.map([GrantReference(4000)], of: first, access: .readWrite)
        }
        #expect(budget.pages == 10)
        #expect(machine.usage(of: first)?.pagesMappedByOthers == 10)
        withExtendedLifetime(pages) {}
        pages = nil
        #expect(budget.pages == 0 && budget.mappings == 0)
        #expect(machine.usage(of: first)?.pagesMappedByOthers == 0)
    }
}
