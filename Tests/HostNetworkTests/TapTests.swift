// Interfaces of the kernel: made, taken over, parked, taken away.

import CLinux
import Glibc
import HostIO
import TestSupport
import Testing

@testable import HostNetwork

@Suite(.enabled(if: Namespace.isAvailable), .serialized) struct TapTests {
    @Test func interfaceIsAsPlanned() async throws {
        try await inNamespace {
            let host = KernelNetwork()
            let device = try host.open(plan("vif7.0", bridge: nil, mtu: 9000))
            let netlink = try NetlinkSocket()
            var link = try #require(try interface("vif7.0"))
            #expect(device.name == "vif7.0")
            #expect(link.alias == "xenback test vif7.0")
            #expect(link.kind == "tun")
            #expect(link.address == [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff])
            #expect(link.mtu == 9000)
            #expect(!link.isUp, "a script may have to rename it")
            try netlink.change(link, LinkChange(isUp: true))
            link = try #require(try interface("vif7.0"))
            #expect(!link.hasCarrier)
            let queues = try device.openQueues(4)
            #expect(queues.count == 4)
            link = try #require(try interface("vif7.0"))
            #expect(link.hasCarrier)
            try device.setCarrier(false)
            #expect(try interface("vif7.0")?.hasCarrier == false)
            try device.setCarrier(true)
            #expect(try interface("vif7.0")?.hasCarrier == true)
            #expect(failure { () throws(HostFailure) in try device.openQueues(1) }?.kind == .busy)
            withExtendedLifetime(queues) {}
        }
    }

    @Test func predecessorIsTakenOverAndAStrangerIsNot() async throws {
        try await inNamespace {
            let host = KernelNetwork()
            let netlink = try NetlinkSocket()
            try netlink.addBridge("bridge0")
            do {
                let device = try host.open(plan("vif7.0"))
                let queue = try device.openQueues(1)[0]
                for _ in 0..<20 { _ = queue.put(.plain(body: [UInt8](repeating: 7, count: 60))) }
            }
            let before = try #require(try interface("vif7.0"))
            #expect(!before.hasCarrier, "nobody holds a queue")
            #expect(before.counters.receivedPackets == 20)
            let device = try host.open(plan("vif7.0"))
            let after = try #require(try interface("vif7.0"))
            #expect(after.index == before.index)
            #expect(after.master == before.master && after.master != 0)
            #expect(after.counters.receivedPackets == 20)
            #expect(try device.openQueues(2).count == 2)

            var other = plan("vif7.0")
            other.owner = "xenback test another"
            let refusal = failure { () throws(HostFailure) in try host.open(other) }
            #expect(refusal?.kind == .busy)
            #expect(refusal?.text.contains("belongs to 'xenback test vif7.0'") == true)
            #expect(failure { () throws(HostFailure) in try host.open(plan("bridge0")) }?.kind == .busy)
        }
    }

    /// vif-common.sh renames `vif7.0` to the configuration's `vifname`.
    @Test func renamedInterfaceIsFound() async throws {
        try await inNamespace {
            let host = KernelNetwork()
            let netlink = try NetlinkSocket()
            let device = try host.open(plan("vif7.0", bridge: nil))
            let link = try #require(try interface("vif7.0"))
            try netlink.change(link, LinkChange(name: "web-server"))
            #expect(device.name == "web-server")
            #expect(try device.openQueues(2).count == 2)
            let successor = try host.open(plan("vif7.0", bridge: nil))
            #expect(successor.name == "web-server")
            try host.remove(plan("vif7.0", bridge: nil))
            #expect(try netlink.link(index: link.index) == nil)
        }
    }

    @Test func onlyOursIsRemoved() async throws {
        try await inNamespace {
            let host = KernelNetwork()
            let netlink = try NetlinkSocket()
            _ = try host.open(plan("vif7.0", bridge: nil))
            try netlink.addBridge("vif8.0")
            #expect(try KernelNetwork.leftovers().map(\.owner) == ["xenback test vif7.0"])
            try host.remove(plan("vif8.0", bridge: nil))
            #expect(try interface("vif8.0") != nil)
            try host.remove(plan("vif7.0", bridge: nil))
            try host.remove(plan("vif7.0", bridge: nil))
            #expect(try interface("vif7.0") == nil)
            #expect(try KernelNetwork.leftovers().isEmpty)
        }
    }

    @Test func parkedQueueKeepsTheLink() async throws {
        try await inNamespace {
            let host = KernelNetwork()
            let netlink = try NetlinkSocket()
            try netlink.addBridge("bridge0")
            var device = try host.open(plan("vif7.0"))
            var queues = try device.openQueues(3)
            let link = try #require(try interface("vif7.0"))
            for _ in 0..<5 { _ = queues[0].put(.plain(body: [UInt8](repeating: 7, count: 60))) }
            do {
                let parked = try ParkedQueue(owner: "xenback test vif7.0")
                #expect(parked.name == "vif7.0")
                queues = []
                let orphan = try #require(try interface("vif7.0"))
                #expect(orphan.hasCarrier, "the parked queue keeps it")
                #expect(orphan.index == link.index && orphan.master == link.master && link.master != 0)
                #expect(orphan.counters.receivedPackets == 5)
                device = try host.open(plan("vif7.0"))
                queues = try device.openQueues(2)
                #expect(try interface("vif7.0")?.hasCarrier == true)
            }
            queues = []
            let dark = try #require(try interface("vif7.0"))
            #expect(!dark.hasCarrier)
            #expect(dark.index == link.index && dark.master == link.master)
            // A link that was down stays down.
            let parked = try ParkedQueue(owner: "xenback test vif7.0")
            #expect(try interface("vif7.0")?.hasCarrier == false)
            withExtendedLifetime(parked) {}
        }
    }

    /// Who restarts everything keeps a copy meanwhile: the service manager, as a rule.
    @Test func copyOfAParkedQueueKeepsTheLink() async throws {
        try await inNamespace {
            let host = KernelNetwork()
            try NetlinkSocket().addBridge("bridge0")
            let owner = "xenback test vif7.0"
            var device: (any PacketDevice)? = try host.open(plan("vif7.0"))
            var queues = try device?.openQueues(2) ?? []
            var parked: ParkedQueue? = try ParkedQueue(owner: owner)
            var copy: OpenFile? = OpenFile(adopting: dup(try #require(parked).descriptor))
            queues = []
            device = nil
            parked = nil
            #expect(try interface("vif7.0")?.hasCarrier == true, "the copy keeps it")
            // The service manager closes what says to poll(2) that it is broken.
            var entry = pollfd(fd: try #require(copy).descriptor, events: 0, revents: 0)
            #expect(unsafe poll(&entry, 1, 0) == 0)
            // The next process parks its own and lets go of the copy.
            parked = try ParkedQueue(owner: owner)
            copy = nil
            #expect(try interface("vif7.0")?.hasCarrier == true)
            device = try host.open(plan("vif7.0"))
            queues = try device?.openQueues(1) ?? []
            #expect(try interface("vif7.0")?.hasCarrier == true && queues.count == 1)
            withExtendedLifetime((parked, copy)) {}
        }
    }

    /// Packets go to the queues that are in service, whatever is parked beside them.
    @Test func parkedQueueGetsNoPackets() async throws {
        try await inNamespace {
            let host = KernelNetwork()
            let netlink = try NetlinkSocket()
            try netlink.addBridge("bridge0")
            let a = try host.open(plan("a"))
            let b = try host.open(plan("b"))
            let from = try a.openQueues(1)[0]
            let parked = try ParkedQueue(owner: "xenback test b")
            let to = try b.openQueues(1)[0]
            #expect(from.reaches(to))
            for number in 0..<100 {
                _ = from.put(.plain(from: UInt8(number), body: [UInt8](repeating: UInt8(number), count: 60)))
            }
            var seen = 0
            while let packet = to.takePlain(milliseconds: 100) {
                #expect(packet.payload.first == UInt8(seen))
                seen += 1
            }
            #expect(seen == 100)
            withExtendedLifetime(parked) {}
        }
    }

    @Test func parkingMakesNoInterface() async throws {
        try await inNamespace {
            let refusal = failure { () throws(HostFailure) in try ParkedQueue(owner: "xenback test vif7.0") }
            #expect(refusal?.kind == .notFound)
            let made = try interface("vif7.0")
            #expect(made == nil)
        }
    }

    @Test func deletedInterfaceIsAFailureAndNoTrap() async throws {
        try await inNamespace {
            let host = KernelNetwork()
            let netlink = try NetlinkSocket()
            let device = try host.open(plan("vif7.0", bridge: nil))
            let queue = try device.openQueues(1)[0]
            try netlink.delete(try #require(try interface("vif7.0")))
            var byte: UInt8 = 0
            #expect(unsafe read(queue.file.descriptor, &byte, 1) == -1 && errno == EBADFD)
            #expect(failure { () throws(HostFailure) in try device.setCarrier(false) }?.kind == .notFound)
            #expect(failure { () throws(HostFailure) in try device.setOffloads(.checksum) }?.kind == .host)
            #expect(device.droppedByHost == 0)
        }
    }

    @Test func droppedPacketsAreCounted() async throws {
        try await inNamespace {
            let host = KernelNetwork()
            try NetlinkSocket().addBridge("bridge0")
            let a = try host.open(plan("a"))
            let b = try host.open(plan("b"))
            let from = try a.openQueues(1)[0]
            let to = try b.openQueues(1)[0]
            #expect(from.reaches(to))
            // A queue of the interface holds 500 packets (TUN_READQ_SIZE).
            for _ in 0..<2000 { _ = from.put(.plain(body: [UInt8](repeating: 1, count: 60))) }
            #expect(b.droppedByHost > 400)
        }
    }
}
