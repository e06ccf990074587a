// The life of a card: what it publishes, driver reloads, detaching, nonsense in its keys, an interface that goes.

internal import BackendCore
internal import FrontendDrivers
import HostIO
internal import HostNetwork
internal import Hypervisor
internal import SimulatedHost
internal import SimulatedHypervisor
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import NetBackend

extension SimulatedNetworkTests {
    @Suite struct LifecycleTests {
        @Test func whatIsPublished() async throws {
            let scene = try await NetScene()
            let wanted = [
                "feature-sg": "1", "feature-gso-tcpv4": "1", "feature-gso-tcpv6": "1",
                "feature-ipv6-csum-offload": "1", "feature-rx-copy": "1", "feature-rx-flip": "0",
                "feature-multicast-control": "1", "feature-dynamic-multicast-control": "1",
                "feature-split-event-channels": "1", "feature-ctrl-ring": "1", "multi-queue-max-queues": "4",
                "state": "4", "online": "1",
            ]
            for (key, value) in wanted {
                let found = try await scene.backendKey(key)
                #expect(found == value, "\(key)")
            }
            // What is not there cannot be offered.
            for key in ["feature-gso-tcpv4-prefix", "feature-xdp-headroom", "feature-no-csum-offload"] {
                let found = try await scene.backendKey(key)
                #expect(found == nil, "\(key)")
            }
            try await scene.end()
        }

        @Test(arguments: [1, 3])
        func theDriverIsReloaded(queues: Int) async throws {
            var options = NetworkFrontendOptions()
            options.queueCount = queues
            let scene = try await NetScene(options)
            let wire = try scene.wire
            for round in 0..<3 {
                for queue in 0..<queues {
                    let bytes = Frames.plain(1000, seed: round)
                    #expect(try await scene.frontend.sendAndWait(bytes, queue: queue) == 0)
                    #expect(await wire.next(queue: queue)?.bytes == bytes)
                    wire.send(WireFrame(bytes: bytes), queue: queue)
                    #expect(await scene.frontend.nextPacket()?.bytes == bytes)
                }
                #expect(wire.carriers.last == true)
                try await scene.frontend.close()
                #expect(await eventually { wire.carriers.last == false })
                // The interface stays for the next driver.
                #expect(scene.wires["vif7.0"] === wire)
                try await scene.frontend.reconnect()
            }
            try await scene.end()
        }

        @Test func liveDetachTakesTheInterfaceAway() async throws {
            let scene = try await NetScene()
            #expect(try await scene.frontend.sendAndWait(Frames.plain(60)) == 0)
            try await scene.toolstack.detach(scene.card)
            #expect(await eventually { scene.wires["vif7.0"] == nil })
            #expect(try await scene.backendKey("state") == nil)
            #expect(await eventually { await scene.frontend.connection == nil })
            try await scene.bystanderIsServed()
        }

        @Test(arguments: [
            (NetKeys.mac, "00:16:3e"), (NetKeys.mac, ""), (NetKeys.mtu, "0"), (NetKeys.mtu, "4294967296"),
            (NetKeys.mtu, "-1"),
        ])
        func nonsenseOfTheToolstack(key: String, value: String) async throws {
            let scene = try await NetScene(keys: [(key, value)], connects: false)
            #expect(try await eventually { try await scene.errorNode()?.contains("\(key)=") ?? false })
            #expect(try await scene.backendKey("state") != "4")
            #expect(scene.wires["vif7.0"] == nil)
            try await scene.end()
        }

        /// A bridge that is not there, a name that is taken: the toolstack is told, and a later attach finds it mended.
        @Test func theHostCannotMakeTheInterface() async throws {
            let refusal = HostFailure(.notFound, "there is no bridge xenbr9")
            let scene = try await NetScene(refusal: refusal, connects: false)
            #expect(
                try await eventually { try await scene.errorNode()?.contains("there is no bridge xenbr9") ?? false }
            )
            #expect(try await scene.backendKey("state") != "4")
            #expect(scene.wires["vif7.0"] == nil)
            try await scene.bystanderIsServed()
            try await scene.toolstack.remove(scene.card)
            scene.wires.refuse("vif7.0", nil)
            try await scene.reattach()
            try await scene.frontend.connect()
            #expect(try await scene.frontend.sendAndWait(Frames.plain(60)) == 0)
            #expect(await (try scene.wire).next()?.bytes == Frames.plain(60))
            try await scene.end()
        }

        static let wrongKeys: [(String, [(String, String?)])] = [
            ("num-queues is 0", [("multi-queue-num-queues", "0")]),
            ("num-queues is 2147483648", [("multi-queue-num-queues", "2147483648")]),
            ("num-queues is 5", [("multi-queue-num-queues", "5")]),
            ("queue-1/tx-ring-ref is missing", [("queue-1/tx-ring-ref", nil)]),
            (
                "queue-1/event-channel is missing",
                [("queue-1/event-channel-rx", nil), ("queue-1/event-channel-tx", nil)]
            ),
            ("cannot map the ring", [("queue-1/tx-ring-ref", "77777")]),
            ("bind port 4000", [("queue-0/event-channel-rx", "4000")]),
            ("request-rx-copy", [("request-rx-copy", "0")]),
        ]

        /// Zero queues, too many, half of their directories missing, rings and ports that are not there.
        @Test(arguments: wrongKeys)
        func wrongKeysOfTheFrontend(says: String, keys: [(String, String?)]) async throws {
            let scene = try await NetScene(connects: false)
            let raw = RawNetworkFrontend(scene.guest, index: NetScene.victimPath.index)
            let queues = [try await raw.makeQueue(), try await raw.makeQueue()]
            _ = try? await raw.connect(queues, adding: keys)
            try await scene.isClosed(saying: says)
            #expect(scene.machine.usage(of: guestDomain)?.pagesMappedByOthers == NetScene.bystanderRings)
            try await scene.end()
        }

        /// Somebody changes the interface of a connected card: it is looked at, once for each change, and the repair counted.
        @Test func theInterfaceIsKeptInItsPlace() async throws {
            let scene = try await NetScene(keys: [(NetKeys.mtu, "1500"), (NetKeys.bridge, "xenbr0")])
            let wire = try scene.wire
            let keeper = try #require(wire.keeper)
            let place = KeptPlace(name: "vif7.0", placement: .bridge(name: "xenbr0", vlan: nil), mtu: 1500)
            #expect(wire.keptPlaces == [place])
            #expect(keeper.looks == 0)
            keeper.change(PlaceReport(.putBack, "interface vif7.0 was taken off xenbr0: put back"))
            #expect(try await eventually { try await scene.counter("interface-repairs") == 1 })
            keeper.change(PlaceReport(.left, "interface vif7.0 was set down again and again: it is left so"))
            #expect(await eventually { keeper.looks == 2 })
            #expect(try await scene.counter("interface-repairs") == 1)
            // What happens while the driver is reloaded is seen when it is back.
            try await scene.frontend.close()
            #expect(await eventually { wire.carriers.last == false })
            keeper.change(PlaceReport(.putBack, "interface vif7.0 was set down: put back"))
            try await scene.frontend.reconnect()
            #expect(try await eventually { try await scene.counter("interface-repairs") == 2 })
            #expect(wire.keptPlaces == [place], "the first connection's place is kept")
            // A successor keeps what it finds, under whatever name.
            try await scene.kill()
            try scene.revive()
            #expect(await eventually { wire.keptPlaces.count == 2 })
            #expect(wire.keptPlaces.last?.name == nil)
            try await scene.end()
        }

        /// The toolstack's script went on although another card's interface has the name.
        @Test func theNameIsAnothers() async throws {
            let scene = try await NetScene(connects: false)
            #expect(await eventually { scene.wires["vif7.0"] != nil })
            let refusal = HostFailure(
                .busy,
                "interface web1 exists already and belongs to 'xenback backend/vif/8/0'"
            )
            try scene.wire.nameIsTaken(refusal)
            _ = try? await scene.frontend.connect()
            try await scene.isClosed(saying: "belongs to 'xenback backend/vif/8/0'")
            try await scene.end()
        }

        /// A card that is just going lets go of the name: that is waited for, before the interface is made and after the
        /// script.
        @Test func theNameComesFree() async throws {
            let refusal = HostFailure(
                .busy,
                "interface web1 exists already and belongs to 'xenback backend/vif/8/0'"
            )
            let scene = try await NetScene(refusal: refusal, connects: false)
            #expect(await eventually { scene.wires.refusalCount > 1 })
            scene.wires.refuse("vif7.0", nil)
            #expect(await eventually { scene.wires["vif7.0"] != nil })
            try scene.wire.nameIsTaken(refusal)
            let frontend = scene.frontend
            let connecting = Task { _ = try await frontend.connect() }
            let wire = try scene.wire
            #expect(await eventually { wire.keptPlaces.count > 1 })
            wire.nameIsTaken(nil)
            try await connecting.value
            #expect(try await scene.frontend.sendAndWait(Frames.plain(60)) == 0)
            try await scene.end()
        }

        @Test(arguments: [false, true])
        func theInterfaceIsDeletedUnderUs(whileReceiving: Bool) async throws {
            let scene = try await NetScene()
            let wire = try scene.wire
            #expect(try await scene.frontend.sendAndWait(Frames.plain(60)) == 0)
            guard wire.vanish() else { return }
            if whileReceiving, HostWay.current == .vhost {
                // The kernel's thread sees no packet, and says nothing: netlink does.
                wire.keeper?.change(PlaceReport(.gone, "the interface vif7.0 was deleted"))
            } else if whileReceiving {
                wire.send(WireFrame(bytes: Frames.plain(60)))
            } else {
                _ = try? await scene.frontend.sendAndWait(Frames.plain(60))
            }
            try await scene.isClosed(saying: "vif7.0 was deleted")
            try await scene.end()
        }
    }
}
