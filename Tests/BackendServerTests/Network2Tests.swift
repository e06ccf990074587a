// netchannel2 cards through the whole service as processes: attached and detached by the commands' verbs, since no xl
// knows them.

import ControlProtocol
import FrontendDrivers
import HostIO
import Hypervisor
import NetChannel2
import SimulatedHost
import SimulatedHypervisor
import SystemPackage
import Testing
import XenWire

@testable import BackendServer

extension ServiceTests {
    @Test func aNetchannel2CardIsAttachedAndDetached() async throws {
        let services = try Services(hasNetwork: true)
        let exchange = try PacketExchange(directory: services.network)
        defer { exchange.shutDown() }
        try exchange.add("vif2-1.0")
        let domain = try #require(DomainID(1))
        try services.host.machine.createDomain(domain)
        let guest = try services.host.machine.hypervisor(for: domain)
        let frontend = NetChannel2Frontend(guest, loop: services.host.loop, index: 0)

        async let made = services.call(
            Network2Attach(domain: "1", card: "front_mac=00:16:3e:00:00:01, max_bypasses=0, rate=1GB/s")
        )
        let home = "/local/domain/1/device/vif2/0"
        let store = services.host.dom0.store
        try await eventually("the guest's nodes") { try await store.read("\(home)/backend") != nil }
        try await frontend.connect(within: .seconds(30))
        #expect(try await made.device.path == "backend/vif2/1/0")

        let wanted = [
            ("\(home)/mac", "00:16:3e:00:00:01"), ("\(home)/local-trusted", "0"), ("\(home)/remote-trusted", "1"),
            ("\(home)/filter-mac", "0"), ("\(home)/state", "4"), ("backend/vif2/1/0/remote-mac", "00:16:3e:00:00:01"),
            ("backend/vif2/1/0/filter-mac", "1"), ("backend/vif2/1/0/max-bypasses", "0"),
            ("backend/vif2/1/0/handle", "0"), ("backend/vif2/1/0/rate", "50000000,50000"),
            ("backend/vif2/1/0/state", "4"),
        ]
        for (node, value) in wanted {
            let found = try await store.read(node)
            #expect(found == value, "\(node)")
        }
        let permissions = try await store.perform { (store) throws(HypervisorFailure) in
            (try store.permissions(home), try store.permissions("backend/vif2/1/0"))
        }
        #expect(permissions.0 == [XenStorePermission(domain, .none), XenStorePermission(.initial, .read)])
        #expect(permissions.1 == [XenStorePermission(.initial, .none), XenStorePermission(domain, .read)])

        let cards = try await services.call(NetworkList(domain: "1")).cards
        #expect(cards.map(\.device.kind) == ["vif2"] && cards.first?.mac == "00:16:3e:00:00:01")
        #expect(cards.first?.interface == "vif2-1.0" && cards.first?.queues == 1)
        let report = try await services.call(Show(domain: "1", device: "vif2/0")).reports.first
        #expect(report?.device.backendState == "connected")

        async let gone = services.call(Network2Detach(domain: "1", device: "0"))
        _ = try await gone
        #expect(try await store.directory("backend/vif2/1/0") == nil)
        #expect(try await store.directory(home) == nil)
        #expect(await !frontend.isConnected)
        await services.end()
    }

    @Test func aNetchannel2CardThatIsNone() async throws {
        let services = try Services(hasNetwork: true)
        try services.host.machine.createDomain(try #require(DomainID(1)))
        for (line, reason) in [("brigde=a", "unknown key 'brigde'"), ("mac=1", "mac is an address")] {
            let error = await #expect(throws: ControlError.self) {
                try await services.call(Network2Attach(domain: "1", card: line))
            }
            #expect("\(error.map { "\($0)" } ?? "")".contains(reason))
        }
        await #expect(throws: ControlError.self) {
            try await services.call(Network2Detach(domain: "1", device: "0"))
        }
        #expect(try await services.host.dom0.store.directory("backend/vif2") == nil)
        await services.end()
    }
}
