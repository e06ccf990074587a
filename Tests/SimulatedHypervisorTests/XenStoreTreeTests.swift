// The tree as a value: permissions, parents, quotas, transactions.

internal import Hypervisor
internal import SystemPackage
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import SimulatedHypervisor

private let machine = StoreCaller(domain: .initial, privileged: true)
private let guest = StoreCaller(domain: guestDomain, privileged: false)
private let stranger = StoreCaller(domain: DomainID(8)!, privileged: false)

/// A tree with a home that domain 7 may write.
private func treeWithHome(quota: XenStoreQuota = XenStoreQuota()) throws(Errno) -> XenStoreTree {
    var tree = XenStoreTree()
    tree.quota = quota
    _ = try tree.write("/home", [], as: machine)
    _ = try tree.setPermissions("/home", [XenStorePermission(guest.domain, .none)], as: machine)
    return tree
}

@Suite struct XenStoreTreeTests {
    @Test func createdNodesAndParentsInheritPermissionsAndBelongToTheirCreator() throws {
        var tree = try treeWithHome()
        _ = try tree.write("/home/a/b", Array("1".utf8), as: guest)
        #expect(try tree.read("/home/a/b", as: guest) == Array("1".utf8))
        #expect(try tree.directory("/home", as: guest) == ["a"])
        #expect(try tree.permissions("/home/a", as: guest) == [XenStorePermission(guest.domain, .none)])
        #expect(throws: Errno.permissionDenied) { try tree.read("/home/a/b", as: stranger) }
        #expect(tree.ownedNodes(of: guest.domain) == 3)
        // A privileged creator leaves the owner as it is.
        _ = try tree.write("/home/c", [], as: machine)
        #expect(try tree.permissions("/home/c", as: machine).first?.domain == guest.domain)
    }

    @Test func absentNodesAreAbsentOnlyForThoseWhoMaySeeTheParent() throws {
        let tree = try treeWithHome()
        #expect(throws: Errno.noSuchFileOrDirectory) { try tree.read("/home/x", as: guest) }
        #expect(throws: Errno.permissionDenied) { try tree.read("/home/x", as: stranger) }
        #expect(throws: Errno.permissionDenied) { try tree.read("/elsewhere", as: guest) }
    }

    @Test func readersMayNotWriteAndOnlyOwnersSetPermissions() throws {
        var tree = try treeWithHome()
        _ = try tree.write("/home/key", [1], as: guest)
        let shared = [XenStorePermission(guest.domain, .none), XenStorePermission(stranger.domain, .read)]
        _ = try tree.setPermissions("/home/key", shared, as: guest)
        #expect(try tree.read("/home/key", as: stranger) == [1])
        #expect(throws: Errno.permissionDenied) { try tree.write("/home/key", [2], as: stranger) }
        #expect(throws: Errno.permissionDenied) { try tree.setPermissions("/home/key", shared, as: stranger) }
        let stolen = [XenStorePermission(stranger.domain, .none)]
        #expect(throws: Errno.notPermitted) { try tree.setPermissions("/home/key", stolen, as: guest) }
        #expect(try tree.read("/home/key", as: guest) == [1])
    }

    @Test func removalTakesAllBelowAndTellsEachNode() throws {
        var tree = try treeWithHome()
        _ = try tree.write("/home/a/b/c", [], as: guest)
        let changes = try tree.remove("/home/a", as: guest)
        #expect(changes.filter { !$0.exact }.map(\.path) == ["/home/a"])
        #expect(Set(changes.filter(\.exact).map(\.path)) == ["/home/a/b", "/home/a/b/c"])
        #expect(try tree.directory("/home", as: guest).isEmpty)
        #expect(tree.ownedNodes(of: guest.domain) == 1)
        #expect(throws: Errno.noSuchFileOrDirectory) { try tree.remove("/home/a", as: guest) }
        #expect(throws: Errno.invalidArgument) { try tree.remove("/", as: machine) }
    }

    @Test func quotasHoldForGuestsAndNotForThePrivileged() throws {
        var quota = XenStoreQuota()
        quota.nodesPerDomain = 3
        quota.bytesPerNode = 64
        var tree = try treeWithHome(quota: quota)
        #expect(throws: Errno.noSpace) { try tree.write("/home/big", Array(repeating: 0, count: 65), as: guest) }
        _ = try tree.write("/home/1", [], as: guest)
        _ = try tree.write("/home/2", [], as: guest)
        #expect(throws: Errno.noSpace) { try tree.write("/home/3", [], as: guest) }
        _ = try tree.write("/home/1", [1], as: guest)
        _ = try tree.write("/other/big", Array(repeating: 0, count: 4096), as: machine)
        #expect(throws: Errno.argListTooLong) {
            try tree.write("/other/big", Array(repeating: 0, count: 4097), as: machine)
        }
        #expect(tree.ownedNodes(of: guest.domain) == 3)
    }

    @Test func aDeadDomainsNumberOpensNothing() throws {
        var tree = try treeWithHome()
        _ = try tree.write("/shared", [], as: machine)
        let readable = [XenStorePermission(.initial, .none), XenStorePermission(guest.domain, .readWrite)]
        _ = try tree.setPermissions("/shared", readable, as: machine)
        tree.disown(guest.domain)
        #expect(throws: Errno.permissionDenied) { try tree.read("/home", as: guest) }
        #expect(throws: Errno.permissionDenied) { try tree.read("/shared", as: guest) }
        #expect(tree.ownedNodes(of: guest.domain) == 0)
    }

    @Test(arguments: ["", "a/", "/a//b", "/a b", "/a.b", "/ü", "//"])
    func oddPathsAreRefused(path: String) {
        #expect(throws: Errno.invalidArgument) { try XenStorePath.canonical(path, of: guest.domain) }
    }

    @Test func pathsAreRelativeToTheHome() throws {
        #expect(try XenStorePath.canonical("device/vbd", of: guest.domain) == "/local/domain/7/device/vbd")
        #expect(try XenStorePath.canonical("/x", of: guest.domain) == "/x")
        #expect(XenStorePath.covers("/a", "/a/b") && XenStorePath.covers("/", "/a"))
        #expect(!XenStorePath.covers("/a", "/ab") && !XenStorePath.covers("/", "@releaseDomain"))
        let long = String(repeating: "a", count: 2049)
        #expect(throws: Errno.invalidArgument) { try XenStorePath.canonical(long, of: guest.domain) }
    }
}

@Suite struct XenStoreTransactionTests {
    @Test func changesShowOnlyAfterTheCommit() throws {
        var tree = try treeWithHome()
        var transaction = XenStoreTransaction(on: tree, caller: guest)
        try transaction.apply(.write("/home/a", [1]))
        #expect(try transaction.read("/home/a") == [1])
        #expect(throws: Errno.noSuchFileOrDirectory) { try tree.read("/home/a", as: guest) }
        let changes = try transaction.commit(to: &tree)
        #expect(changes.map(\.path) == ["/home/a"])
        #expect(try tree.read("/home/a", as: guest) == [1])
    }

    @Test func whatWasReadMustStillHold() throws {
        var tree = try treeWithHome()
        _ = try tree.write("/home/a", [1], as: guest)
        var transaction = XenStoreTransaction(on: tree, caller: guest)
        _ = try transaction.read("/home/a")
        try transaction.apply(.write("/home/b", [2]))
        _ = try tree.write("/home/a", [1], as: guest)
        #expect(throws: Errno.resourceTemporarilyUnavailable) { try transaction.commit(to: &tree) }
        #expect(throws: Errno.noSuchFileOrDirectory) { try tree.read("/home/b", as: guest) }
    }

    @Test func anAbsenceThatWasReadMustStillHold() throws {
        var tree = try treeWithHome()
        var transaction = XenStoreTransaction(on: tree, caller: guest)
        #expect(throws: Errno.noSuchFileOrDirectory) { try transaction.read("/home/lock") }
        _ = try tree.write("/home/lock", [], as: guest)
        #expect(throws: Errno.resourceTemporarilyUnavailable) { try transaction.commit(to: &tree) }
    }

    @Test func strangersChangesElsewhereDoNotDisturb() throws {
        var tree = try treeWithHome()
        _ = try tree.write("/other", [], as: machine)
        var transaction = XenStoreTransaction(on: tree, caller: guest)
        try transaction.apply(.write("/home/a", [1]))
        _ = try tree.write("/other/x", [], as: machine)
        _ = try transaction.commit(to: &tree)
        #expect(try tree.read("/home/a", as: guest) == [1])
    }

    @Test func aRemovalConflictsWithANewChildBelowIt() throws {
        var tree = try treeWithHome()
        _ = try tree.write("/home/a/b", [], as: guest)
        var transaction = XenStoreTransaction(on: tree, caller: guest)
        try transaction.apply(.remove("/home/a"))
        _ = try tree.write("/home/a/b/c", [], as: guest)
        #expect(throws: Errno.resourceTemporarilyUnavailable) { try transaction.commit(to: &tree) }
        #expect(try tree.directory("/home/a/b", as: guest) == ["c"])
    }
}
