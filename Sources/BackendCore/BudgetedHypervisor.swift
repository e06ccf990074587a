// A hypervisor whose mappings of grants are counted: every mapping of a worker goes through one budget.

public import Hypervisor
internal import SharedRing
internal import XenWire

/// Another hypervisor, with a budget for what it maps of the guest's pages.
public final class BudgetedHypervisor: Hypervisor {
    private let base: any Hypervisor
    /// For rings.
    public let grants: any GrantTable
    /// For data: refused before rings are. Copies are the same.
    let dataGrants: any GrantTable

    public init(_ base: any Hypervisor, _ budget: GrantBudget) {
        self.base = base
        grants = BudgetedGrants(base.grants, budget, .ring)
        dataGrants = BudgetedGrants(base.grants, budget, .data)
    }

    public var domains: any DomainControl { base.domains }
    public var sharing: any GrantSharing { base.sharing }
    public var store: any XenStore { base.store }
    public var interrupts: any GuestInterrupts { base.interrupts }
    public func openEventChannels() throws(HypervisorFailure) -> any EventChannels { try base.openEventChannels() }
}

/// A grant table that asks the budget before it maps. A refusal is `GrantBudget.refused`.
private final class BudgetedGrants: GrantTable {
    private let base: any GrantTable
    private let budget: GrantBudget
    private let use: GrantBudget.Use

    init(_ base: any GrantTable, _ budget: GrantBudget, _ use: GrantBudget.Use) {
        self.base = base
        self.budget = budget
        self.use = use
    }

    func map(
        _ references: [GrantReference],
        of domain: DomainID,
        access: GrantAccess
    ) throws(HypervisorFailure) -> SharedPages {
        do throws(GrantBudget.Refusal) { try budget.take(references.count, for: use) } catch {
            throw HypervisorFailure("map \(references.count) grants: \(error)", GrantBudget.refused)
        }
        let pages: SharedPages
        do throws(HypervisorFailure) {
            pages = try base.map(references, of: domain, access: access)
        } catch {
            budget.give(references.count)
            throw error
        }
        return pages.held(by: BudgetedPages(pages, references.count, budget))
    }

    func copy(_ batch: inout GrantCopyBatch, with domain: DomainID) throws(HypervisorFailure) {
        try base.copy(&batch, with: domain)
    }
}

/// Mapped pages that return their share of the budget when they go.
private final class BudgetedPages: Sendable {
    private let pages: SharedPages
    private let count: Int
    private let budget: GrantBudget

    init(_ pages: SharedPages, _ count: Int, _ budget: GrantBudget) {
        self.pages = pages
        self.count = count
        self.budget = budget
    }

    deinit { budget.give(count) }
}
