// Grants: what may be mapped and copied, what each copy is told, and what a revocation finds.

internal import Hypervisor
internal import SharedRing
internal import SimulatedHypervisor
internal import SystemPackage
internal import TestSupport
internal import Testing
internal import XenWire

/// One guest, one backend, private memory to copy with.
private struct Pair {
    let machine: SimulatedMachine
    let frontend: SimulatedHypervisor
    let backend: SimulatedHypervisor
    let memory: PrivatePages

    init() throws {
        machine = try machineWithGuests()
        frontend = try machine.hypervisor(for: guestDomain)
        backend = try machine.hypervisor(for: .initial)
        memory = try PrivatePages(byteCount: 16384)
    }

    func copy(
        _ reference: GrantReference,
        into: Bool = false,
        offset: UInt16 = 0,
        count: UInt16 = 4096
    ) throws -> GrantStatus {
        var batch = GrantCopyBatch(capacity: 1)
        batch.add(
            reference: reference,
            pageOffset: offset,
            byteCount: count,
            intoGrant: into,
            pages: memory,
            privateOffset: 0
        )
        try backend.grants.copy(&batch, with: guestDomain)
        return batch.status(of: 0)
    }
}

@Suite struct GrantTests {
    @Test func mappedPagesAreTheSameMemoryInTheirOrder() throws {
        let pair = try Pair()
        let grant = try pair.frontend.sharing.share(pageCount: 3, with: .initial, access: .readWrite)
        let reversed = Array(grant.references.reversed())
        let mapped = try pair.backend.grants.map(reversed, of: guestDomain, access: .readWrite)
        for page in 0..<3 { grant.pages.storeRelease(UInt32(page + 1), at: page * 4096) }
        #expect((0..<3).map { mapped.loadAcquire(at: $0 * 4096) } == [3, 2, 1])
        mapped.storeRelease(77, at: 4092)
        #expect(grant.pages.loadAcquire(at: 2 * 4096 + 4092) == 77)
        #expect(pair.machine.usage(of: guestDomain)?.pagesMappedByOthers == 3)
    }

    @Test func theLastReferenceUnmaps() throws {
        let pair = try Pair()
        let grant = try pair.frontend.sharing.share(pageCount: 2, with: .initial, access: .readWrite)
        do {
            let mapped = try pair.backend.grants.map(grant.references, of: guestDomain, access: .readOnly)
            #expect(mapped.pageCount == 2)
            #expect(pair.machine.usage(of: guestDomain)?.pagesMappedByOthers == 2)
        }
        #expect(pair.machine.usage(of: guestDomain)?.pagesMappedByOthers == 0)
    }

    @Test func copiesGoBothWaysAtOffsets() throws {
        let pair = try Pair()
        let grant = try pair.frontend.sharing.share(pageCount: 1, with: .initial, access: .readWrite)
        grant.pages.storeRelease(0x0403_0201, at: 512)
        #expect(try pair.copy(grant.references[0], offset: 512, count: 4) == .okay)
        #expect(pair.memory.slot(at: 0, byteCount: 8).u32(0) == 0x0403_0201)
        pair.memory.write([9, 8, 7, 6], at: 0)
        #expect(try pair.copy(grant.references[0], into: true, offset: 4092, count: 4) == .okay)
        #expect(grant.pages.loadAcquire(at: 4092) == 0x0607_0809)
    }

    @Test func badReferencesAreToldApartForEachCopy() throws {
        let pair = try Pair()
        let gone = try pair.frontend.sharing.share(pageCount: 1, with: .initial, access: .readWrite).references[0]
        #expect(try pair.copy(gone) == .generalError)
        let grant = try pair.frontend.sharing.share(pageCount: 1, with: .initial, access: .readOnly)
        let foreign = try pair.frontend.sharing.share(pageCount: 1, with: otherDomain, access: .readWrite)
        let read = grant.references[0]
        #expect(try pair.copy(read) == .okay)
        #expect(try pair.copy(read, into: true) == .generalError)
        #expect(try pair.copy(foreign.references[0]) == .generalError)
        for number: UInt32 in [0, 7, 131_072, .max] {
            #expect(try pair.copy(GrantReference(number)) == .badReference)
        }
        var batch = GrantCopyBatch(capacity: 2)
        for reference in [GrantReference(.max), read] {
            let (pages, offset) = (pair.memory, 0)
            batch.add(
                reference: reference,
                pageOffset: 0,
                byteCount: 16,
                intoGrant: false,
                pages: pages,
                privateOffset: offset
            )
        }
        try pair.backend.grants.copy(&batch, with: guestDomain)
        #expect(batch.status(of: 0) == .badReference)
        #expect(batch.status(of: 1) == .okay)
    }

    @Test func mappingIsAllOrNothing() throws {
        let pair = try Pair()
        let grant = try pair.frontend.sharing.share(pageCount: 1, with: .initial, access: .readOnly)
        let read = grant.references[0]
        for references in [[read, GrantReference(4)], [GrantReference(.max)], []] {
            let result = failure { () throws(HypervisorFailure) in
                _ = try pair.backend.grants.map(references, of: guestDomain, access: .readOnly)
            }
            #expect(result == .invalidArgument)
        }
        let writable = failure { () throws(HypervisorFailure) in
            _ = try pair.backend.grants.map([read], of: guestDomain, access: .readWrite)
        }
        #expect(writable == .invalidArgument)
        let wrongDomain = failure { () throws(HypervisorFailure) in
            _ = try pair.backend.grants.map([read], of: otherDomain, access: .readOnly)
        }
        #expect(wrongDomain == .invalidArgument)
        #expect(pair.machine.usage(of: guestDomain)?.pagesMappedByOthers == 0)
    }

    @Test func aRevokedGrantServesNobodyAndAMappedOneCannotBeRevoked() throws {
        let pair = try Pair()
        let grant = try pair.frontend.sharing.share(pageCount: 2, with: .initial, access: .readWrite)
        var mapped: SharedPages? = try pair.backend.grants.map(
            [grant.references[0]],
            of: guestDomain,
            access: .readWrite
        )
        let busy = failure { () throws(HypervisorFailure) in try pair.frontend.revoke(grant.references[0]) }
        #expect(busy == .resourceBusy && mapped != nil)
        mapped = nil
        try pair.frontend.revoke(grant.references[0])
        #expect(try pair.copy(grant.references[0]) == .generalError)
        #expect(try pair.copy(grant.references[1]) == .okay)
        let again = failure { () throws(HypervisorFailure) in
            _ = try pair.backend.grants.map([grant.references[0]], of: guestDomain, access: .readOnly)
        }
        #expect(again == .invalidArgument)
    }

    @Test func pagesGivenBackWhileMappedStayUntilUnmappedAndComeBackZeroed() throws {
        let pair = try Pair()
        var grant: SharedGrant? = try pair.frontend.sharing.share(pageCount: 1, with: .initial, access: .readWrite)
        let reference = try #require(grant?.references[0])
        var mapped: SharedPages? = try pair.backend.grants.map([reference], of: guestDomain, access: .readWrite)
        mapped?.storeRelease(5, at: 0)
        grant = nil
        #expect(mapped?.loadAcquire(at: 0) == 5)
        let other = try pair.frontend.sharing.share(pageCount: 1, with: .initial, access: .readWrite)
        #expect(other.references[0] != reference)
        mapped = nil
        let reused = try pair.frontend.sharing.share(pageCount: 1, with: .initial, access: .readWrite)
        #expect(reused.references[0] == reference)
        #expect(reused.pages.loadAcquire(at: 0) == 0)
        #expect(pair.machine.usage(of: guestDomain)?.grantedPages == 2)
    }

    @Test func aDestroyedDomainsPagesStayMappedButGrantNothing() throws {
        let pair = try Pair()
        let grant = try pair.frontend.sharing.share(pageCount: 1, with: .initial, access: .readWrite)
        let reference = grant.references[0]
        grant.pages.storeRelease(5, at: 0)
        let mapped = try pair.backend.grants.map([reference], of: guestDomain, access: .readOnly)
        #expect(try pair.copy(reference) == .okay)
        let before = try pair.backend.domains.identity(of: guestDomain)
        try pair.machine.destroyDomain(guestDomain)
        #expect(mapped.loadAcquire(at: 0) == 5)
        #expect(try pair.copy(reference) == GrantStatus(-2))
        #expect(try pair.backend.domains.identity(of: guestDomain) == nil)
        try pair.machine.createDomain(guestDomain)
        #expect(try pair.copy(reference) == .generalError)
        #expect(try pair.backend.domains.identity(of: guestDomain) != before)
        let old = failure { () throws(HypervisorFailure) in
            _ = try pair.frontend.sharing.share(pageCount: 1, with: .initial, access: .readWrite)
        }
        #expect(old == .noSuchProcess)
    }
}
