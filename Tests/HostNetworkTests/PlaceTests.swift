// What others change of an interface, and what is done about it: undone when it is an accident, left when it is a wish.

import CLinux
import Foundation
import Glibc
import HostIO
import TestSupport
import Testing

@testable import HostNetwork

@Suite(.enabled(if: Namespace.isAvailable), .serialized) struct PlaceTests {
    /// An interface as a script leaves it: on a bridge, up.
    private final class Placed {
        let netlink: NetlinkSocket
        let device: any PacketDevice
        let queue: PacketQueue
        let keeper: any PlaceKeeper
        let index: CInt

        init(named name: String? = "web1", mtu: UInt32? = nil) throws {
            netlink = try NetlinkSocket()
            try netlink.addBridge("xenbr0")
            device = try KernelNetwork().open(plan("vif7.0", bridge: nil))
            let link = try #require(try netlink.link(named: "vif7.0"))
            index = link.index
            let bridge = try #require(try netlink.link(named: "xenbr0"))
            if let name { try netlink.change(link, LinkChange(name: name)) }
            try netlink.change(link, LinkChange(master: bridge.index))
            try netlink.change(link, LinkChange(isUp: true))
            queue = try device.openQueues(1)[0]
            keeper = try #require(try device.keepPlace(named: name, nil, mtu: mtu))
        }

        var link: Link { get throws { try #require(try netlink.link(index: index)) } }
        var bridge: Link? { get throws { try netlink.link(named: "xenbr0") } }
        var hasNews: Bool { linux_is_readable(keeper.descriptor, 0) }

        func change(_ change: LinkChange) throws { try netlink.change(link, change) }

        /// Looks until nothing more is told of: what is put back is told of too.
        func look() -> [PlaceReport] {
            var reports: [PlaceReport] = []
            while hasNews {
                keeper.takeNews()
                reports += keeper.look()
            }
            return reports
        }
    }

    /// `vif-bridge offline` of a guest whose vifname is this one's: down, and off the bridge.
    @Test func whatTheScriptOfAnotherGuestDoesIsUndone() async throws {
        try await inNamespace {
            let placed = try Placed()
            #expect(placed.look().isEmpty)
            for round in 0..<2 {
                try placed.change(LinkChange(isUp: false))
                try placed.change(LinkChange(master: 0))
                #expect(placed.hasNews)
                let reports = placed.look()
                #expect(reports.map(\.outcome) == [.putBack, .putBack], "round \(round): \(reports)")
                let text = reports.map(\.text).joined(separator: "; ")
                #expect(text.contains("web1 was taken off xenbr0") && text.contains("web1 was set down"))
                let link = try placed.link
                #expect(try link.isUp && link.master == placed.bridge?.index)
            }
        }
    }

    /// A name, an MTU, another bridge; all at once.
    @Test func everyAspectIsPutBack() async throws {
        try await inNamespace {
            let placed = try Placed(mtu: 1500)
            try placed.netlink.addBridge("other")
            let other = try #require(try placed.netlink.link(named: "other"))
            try placed.change(LinkChange(isUp: false))
            try placed.change(LinkChange(name: "thief"))
            try placed.change(LinkChange(mtu: 9000, master: other.index))
            try placed.change(LinkChange(isUp: true))
            let reports = placed.look()
            #expect(reports.allSatisfy { $0.outcome == .putBack } && reports.count == 3, "\(reports)")
            let link = try placed.link
            #expect(link.name == "web1" && link.mtu == 1500 && link.isUp)
            #expect(try link.master == placed.bridge?.index)
            #expect(placed.device.name == "web1")
        }
    }

    @Test func whatIsDoneAgainAndAgainIsMeant() async throws {
        try await inNamespace {
            let placed = try Placed()
            for _ in 0..<2 {
                try placed.change(LinkChange(isUp: false))
                #expect(placed.look().map(\.outcome) == [.putBack])
                #expect(try placed.link.isUp)
            }
            try placed.change(LinkChange(isUp: false))
            let reports = placed.look()
            #expect(reports.map(\.outcome) == [.left] && reports[0].text.contains("left so"))
            #expect(try !placed.link.isUp)
            // Nothing else is given up with it.
            try placed.change(LinkChange(master: 0))
            #expect(placed.look().map(\.outcome) == [.putBack])
            #expect(try placed.link.master == placed.bridge?.index && !placed.link.isUp)
        }
    }

    /// Without an MTU of its own it follows the bridge's, as the script has it.
    @Test func theMTUMayFollowTheBridge() async throws {
        try await inNamespace {
            let placed = try Placed()
            try placed.netlink.change(try #require(try placed.bridge), LinkChange(mtu: 9000))
            try placed.change(LinkChange(mtu: 9000))
            #expect(placed.look().isEmpty)
            #expect(try placed.link.mtu == 9000)
            try placed.change(LinkChange(mtu: 1400))
            #expect(placed.look().map(\.outcome) == [.putBack])
            #expect(try placed.link.mtu == 9000)
        }
    }

    @Test func aBridgeThatIsGoneIsSaid() async throws {
        try await inNamespace {
            let placed = try Placed()
            let bridge = try #require(try placed.bridge)
            try placed.netlink.change(bridge, LinkChange(isUp: false))
            try placed.netlink.delete(bridge)
            let reports = placed.look()
            #expect(reports.map(\.outcome) == [.failed])
            #expect(reports.first?.text.contains("there is no bridge xenbr0 any more") == true)
            #expect(try placed.link.isUp)
        }
    }

    /// A host has hundreds of interfaces, and each of them has a keeper.
    @Test func othersWakeNobody() async throws {
        try await inNamespace {
            let placed = try Placed()
            _ = placed.look()
            let other = try KernelNetwork().open(plan("vif8.0", bridge: nil))
            let link = try #require(try placed.netlink.link(named: "vif8.0"))
            try placed.netlink.change(link, LinkChange(isUp: true))
            #expect(!placed.hasNews)
            try placed.change(LinkChange(mtu: 1400))
            #expect(placed.hasNews)
            withExtendedLifetime(other) {}
        }
    }

    /// The script found the name taken, and went on with the interface that has it.
    @Test func aNameThatAnotherHasIsRefused() async throws {
        try await inNamespace {
            let placed = try Placed()
            let second = try KernelNetwork().open(plan("vif8.0", bridge: nil))
            let refusal = failure { () throws(HostFailure) in try second.keepPlace(named: "web1", nil, mtu: nil) }
            #expect(refusal?.kind == .busy)
            #expect(refusal?.text.contains("web1 exists already and belongs to 'xenback test vif7.0'") == true)
            #expect(try placed.link.name == "web1")
            // A script may have its own ideas about names.
            #expect(try second.keepPlace(named: "web2", nil, mtu: nil) != nil)
        }
    }

    /// The kernel forgets routes through an interface that goes down.
    @Test func routesComeBackWithTheLink() async throws {
        try await inNamespace {
            let netlink = try NetlinkSocket()
            try netlink.addBridge("uplink")
            let uplink = try #require(try interface("uplink"))
            try netlink.addAddress("192.0.2.1/24", to: uplink)
            let placement = InterfacePlan.Placement.routed(addresses: ["198.51.100.7"], gatewayDevice: "uplink")
            let plan = InterfacePlan(name: "vif7.0", owner: "xenback test vif7.0", placement: placement)
            let device = try KernelNetwork().open(plan)
            let queue = try device.openQueues(1)[0]
            let keeper = try #require(try device.keepPlace(named: nil, placement, mtu: nil))
            try netlink.change(try #require(try interface("vif7.0")), LinkChange(isUp: false))
            #expect(!PlaceTests.routes.contains("vif7.0"))
            keeper.takeNews()
            #expect(keeper.look().map(\.outcome) == [.putBack])
            #expect(PlaceTests.routes.contains("vif7.0"))
            withExtendedLifetime(queue) {}
        }
    }

    /// The calling thread's own.
    private static var routes: String {
        (try? String(contentsOfFile: "/proc/thread-self/net/route", encoding: .utf8)) ?? ""
    }
}

@Suite struct PlaceRulesTests {
    private let place = LinkPlace(name: "web1", bridge: "xenbr0", isUp: true, mtu: 1500)
    private let second: UInt64 = 1_000_000_000

    private func down(_ rules: inout PlaceRules, at time: UInt64) -> [PlaceRules.Decision] {
        var found = place
        found.isUp = false
        return rules.look(found, bridgeMTU: 1500, now: time).map(\.1)
    }

    /// A guest that is refused for its name comes again after ten seconds at the soonest.
    @Test func changesThatAreFarApartAreUndoneForEver() {
        var rules = PlaceRules(wanted: place, mtuIsGiven: false)
        for number in 0..<100 as Range<UInt64> {
            #expect(down(&rules, at: number * 6 * second) == [.putBack], "\(number)")
        }
    }

    @Test func threeWithinTenSecondsAreAWish() {
        var rules = PlaceRules(wanted: place, mtuIsGiven: false)
        #expect(down(&rules, at: 0) == [.putBack])
        #expect(down(&rules, at: 4 * second) == [.putBack])
        #expect(down(&rules, at: 9 * second) == [.leave])
        #expect(!rules.wanted.isUp)
        #expect(down(&rules, at: 10 * second) == [])
        // It is brought up again: from now on it is to stay up.
        #expect(rules.look(place, bridgeMTU: 1500, now: 20 * second).isEmpty)
        #expect(down(&rules, at: 21 * second) == [.putBack])
    }

    @Test func aspectsAreCountedEachForItself() {
        var rules = PlaceRules(wanted: place, mtuIsGiven: true)
        for (number, change) in [\LinkPlace.mtu, \LinkPlace.mtu].enumerated() {
            var found = place
            found[keyPath: change] = 9000
            found.bridge = nil
            let decisions = rules.look(found, bridgeMTU: 9000, now: UInt64(number))
            #expect(decisions.map(\.0) == [.mtu, .bridge] && decisions.allSatisfy { $0.1 == .putBack })
        }
        #expect(down(&rules, at: 2) == [.putBack])
    }
}
