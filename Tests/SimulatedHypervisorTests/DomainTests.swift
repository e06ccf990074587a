// Who a domain is, as the simulation lets others see it.

import Hypervisor
import SharedRing
import SimulatedHypervisor
import SystemPackage
import Testing
import XenWire

@Suite struct DomainTests {
    @Test func aDriverDomainDoesNotSeeUUIDs() throws {
        let machine = try SimulatedMachine()
        let (driver, guest) = (try #require(DomainID(2)), try #require(DomainID(3)))
        for domain in [driver, guest] { try machine.createDomain(domain) }
        let seen = try machine.hypervisor(for: driver).domains
        #expect(try seen.identity(of: guest) == DomainIdentity(numberOf: guest))
        #expect(try seen.identity(of: driver) != DomainIdentity(numberOf: driver))
        #expect(try machine.hypervisor(for: .initial).domains.identity(of: guest) != DomainIdentity(numberOf: guest))
        try machine.destroyDomain(guest)
        #expect(try seen.identity(of: guest) == nil)
    }

    /// xenstored says nothing to it, and Xen keeps a dead domain for as long as somebody maps its pages.
    @Test func aDriverDomainIsToldByXenAlone() async throws {
        let machine = try SimulatedMachine()
        let (driver, guest, missing) = (try #require(DomainID(2)), try #require(DomainID(3)), try #require(DomainID(4)))
        for domain in [driver, guest] { try machine.createDomain(domain) }
        let own = try machine.hypervisor(for: driver)
        let toolstack = try machine.hypervisor(for: .initial)
        #expect(try own.domains.identity(of: missing) == nil)
        for domain in [guest, missing] {
            let failure = await #expect(throws: HypervisorFailure.self) {
                try await own.store.directory("/local/domain/\(domain)")
            }
            #expect(failure?.errno == .permissionDenied)
        }
        // That the home is gone cannot be seen.
        try await toolstack.store.remove("/local/domain/3")
        #expect(try toolstack.domains.identity(of: guest) == nil)
        #expect(try own.domains.identity(of: guest) == DomainIdentity(numberOf: guest))
        let grant = try machine.hypervisor(for: guest).sharing.share(pageCount: 1, with: driver, access: .readWrite)
        var mapped: SharedPages? = try own.grants.map(grant.references, of: guest, access: .readWrite)
        try machine.destroyDomain(guest)
        #expect(try own.domains.identity(of: guest) == DomainIdentity(numberOf: guest))
        withExtendedLifetime(mapped) {}
        mapped = nil
        #expect(try own.domains.identity(of: guest) == nil)
    }

    @Test func aDomainWhoseHomeIsRemovedIsGone() async throws {
        let machine = try SimulatedMachine()
        let guest = try #require(DomainID(3))
        try machine.createDomain(guest)
        let own = try machine.hypervisor(for: .initial)
        try await own.store.remove("/local/domain/3/vm")
        #expect(try own.domains.identity(of: guest) == DomainIdentity(numberOf: guest))
        try await own.store.remove("/local/domain/3")
        #expect(try own.domains.identity(of: guest) == nil)
    }

    /// A domain that is dead lives on in Xen for as long as its pages are mapped, but is nobody any more; its number may be
    /// another's already.
    @Test func aDyingDomainIsGoneAndItsNumberIsReused() throws {
        let machine = try SimulatedMachine()
        let guest = try #require(DomainID(3))
        try machine.createDomain(guest)
        let own = try machine.hypervisor(for: .initial)
        let grant = try machine.hypervisor(for: guest).sharing.share(pageCount: 1, with: .initial, access: .readWrite)
        let mapped = try own.grants.map(grant.references, of: guest, access: .readWrite)
        let before = try #require(try own.domains.identity(of: guest))
        try machine.destroyDomain(guest)
        #expect(try own.domains.identity(of: guest) == nil)
        try machine.createDomain(guest)
        #expect(try #require(try own.domains.identity(of: guest)) != before)
        withExtendedLifetime(mapped) {}
    }
}
