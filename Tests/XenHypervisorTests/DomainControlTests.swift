// Whether a domain is there and who it is, from a xenstored that says what real ones say.

import Hypervisor
import Synchronization
import SystemPackage
import Testing
import XenWire

@testable import XenHypervisor

private let uuid = "6c6ed9e5-9a1e-4b4b-9a7c-3f3c0b1f5f0a"

@Suite struct DomainControlTests {
    private let fake: FakeXenstored
    private let domains: XenDomainControl
    private let guest: DomainID

    init() throws {
        fake = try FakeXenstored()
        domains = XenDomainControl(store: try XenStoreClient(paths: [fake.path], patience: .seconds(10)))
        guest = try #require(DomainID(7))
        fake.state.withLock { _ = $0.introduced.insert("7") }
        set("/local/domain/7", "")
        set("/local/domain/7/vm", "/vm/\(uuid)")
    }

    private func set(_ node: String, _ value: String) { fake.set(node, Array(value.utf8)) }

    @Test func theToolstacksUUIDIsTheIdentity() throws {
        #expect(try domains.identity(of: guest) == DomainIdentity(uuid))
        // The next guest under the same number.
        set("/local/domain/7/vm", "/vm/" + String(uuid.reversed()))
        #expect(try domains.identity(of: guest) == DomainIdentity(String(uuid.reversed())))
    }

    /// xenstored drops a domain when it begins to die, though its home and its pages may stay for long.
    @Test func aDyingDomainIsGone() throws {
        fake.state.withLock { _ = $0.introduced.remove("7") }
        #expect(try domains.identity(of: guest) == nil)
    }

    /// The toolstack removes the home first and destroys the domain then: it must not look like another domain meanwhile.
    @Test func aDomainWithoutAHomeIsGone() throws {
        fake.state.withLock { state in
            state.nodes["/local/domain/7"] = nil
            state.nodes["/local/domain/7/vm"] = nil
        }
        #expect(try domains.identity(of: guest) == nil)
    }

    /// xenstored tells it nothing, neither of a domain that is there nor of one that is not: Xen is asked.
    @Test func inADriverDomainTheNumberHasToDo() throws {
        fake.state.withLock { $0.isPrivileged = false }
        for missing in ["", "/vm"] { set("/local/domain/7\(missing)", "!EACCES") }
        let present = Mutex<Set<DomainID>>([guest, .initial])
        let domains = XenDomainControl(
            store: try XenStoreClient(paths: [fake.path], patience: .seconds(10)),
            exists: { (domain) throws(HypervisorFailure) in present.withLock { $0.contains(domain) } }
        )
        #expect(try domains.identity(of: guest) == DomainIdentity(numberOf: guest))
        present.withLock { _ = $0.remove(guest) }
        #expect(try domains.identity(of: guest) == nil)
        // Its own home is readable.
        set("/local/domain/0/vm", "/vm/\(uuid)")
        #expect(try domains.identity(of: .initial) == DomainIdentity(uuid))
    }

    @Test func aBindToPortZeroTellsWhoIsThere() throws {
        #expect(try !PortProbe.exists(guest, .noSuchProcess))
        for error in [Errno.invalidArgument, .permissionDenied, .notPermitted] {
            #expect(try PortProbe.exists(guest, error))
        }
        // "Nobody can tell" is not "there is none".
        #expect(throws: HypervisorFailure.self) { try PortProbe.exists(guest, .noMemory) }
    }

    @Test func domainZeroHasNoUUID() throws {
        set("/local/domain/0/domid", "0")
        #expect(domains.own == .initial)
        #expect(try domains.identity(of: .initial) == DomainIdentity(numberOf: .initial))
    }

    @Test(arguments: ["", "/", "/vm/a\nb", "/vm/" + String(repeating: "x", count: 65)])
    func aNodeThatNamesNobodyIsNoIdentity(_ node: String) throws {
        set("/local/domain/7/vm", node)
        #expect(try domains.identity(of: guest) == DomainIdentity(numberOf: guest))
    }

    /// "Nobody can tell" is not "there is none".
    @Test func aRefusalIsAFailure() throws {
        for kind in [StoreMessage.Kind.isIntroduced, StoreMessage.Kind.read] {
            fake.state.withLock { $0.refusals[kind] = ["ENOMEM"] }
            #expect(throws: HypervisorFailure.self) { try domains.identity(of: guest) }
            #expect(try domains.identity(of: guest) == DomainIdentity(uuid))
        }
    }
}
