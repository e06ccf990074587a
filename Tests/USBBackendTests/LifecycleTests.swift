// The life of a controller: what its frontend sees, driver reloads, detaching, nonsense in its keys.

internal import BackendCore
internal import FrontendDrivers
internal import HostUSB
internal import Hypervisor
internal import SimulatedHost
internal import SimulatedHypervisor
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import USBBackend

extension SimulatedControllerTests {
    @Suite struct LifecycleTests {
        @Test(arguments: [DeviceKind.vusb, .qusb])
        func aDiskIsReadAndWritten(kind: DeviceKind) async throws {
            let scene = try await USBScene(
                kind: kind,
                ports: [1: "1-1"],
                plugging: [("1-1", SimulatedDisk(try USBScene.medium(seed: 1)))]
            )
            let disk = try await GuestDevice(scene.frontend, port: 1)
            try await disk.enumerate()
            #expect(try await disk.read(block: 100, count: 128) == USBScene.pattern(51200, 65536, seed: 1))
            let bytes = USBScene.pattern(0, 32768, seed: 77)
            #expect(try await disk.write(block: 100, bytes))
            #expect(try await disk.read(block: 100, count: 64) == bytes)
            #expect(try await scene.counter("frontend-faults") == 0)
            #expect(try await scene.counter("bytes-in") > 98304)
            #expect(try await scene.detail("port 1")?.hasPrefix("1-1") ?? false)
            try await scene.end()
        }

        /// libxl waits until it sees a 2 of a `vusb`.
        @Test func aToolstackThatLooksForTwoSeesIt() async throws {
            let scene = try await USBScene(connects: false)
            var nodes = SimulatedToolstack.USBController(DevicePath(kind: .vusb, domain: guestDomain, index: 8))
            nodes.version = .usb11
            let controller = nodes
            let backend = USBBackend(nodes.path, try scene.backend.environment, scene.usb)
            async let attached: Void = scene.toolstack.attach(controller)
            // As the broker does, which starts what it has seen.
            #expect(try await eventually { try await scene.toolstack.backendKey("state", of: controller) != nil })
            let life = Task(executorPreference: backend.environment.controlLoop) { await backend.run() }
            try await attached
            await backend.drain()
            await life.value
            try await scene.end()
        }

        @Test func theDriverIsReloaded() async throws {
            let scene = try await USBScene(
                ports: [2: "1-1"],
                plugging: [("1-1", SimulatedDisk(try USBScene.medium(seed: 1)))]
            )
            for round in 0..<3 {
                let disk = try await GuestDevice(scene.frontend, port: 2, address: UInt8(round + 3))
                try await disk.enumerate()
                #expect(try await disk.read(block: round, count: 2) == USBScene.pattern(round * 512, 1024, seed: 1))
                try await scene.frontend.close()
                // The device stays ours: no other driver gets between.
                #expect(scene.usb.owner(at: USBBusAddress("1-1")!)?.contains("port 2") ?? false)
                try await scene.frontend.reconnect()
            }
            // A device that a driver before has used is reset for the next.
            #expect(try await scene.counter("resets") == 2)
            try await scene.end()
        }

        @Test func liveDetachGivesTheDevicesBack() async throws {
            let scene = try await USBScene(
                ports: [1: "1-1", 3: "1-2"],
                plugging: [("1-1", SimulatedDisk(try USBScene.medium(seed: 1))), ("1-2", SimulatedKeyboard())]
            )
            try await GuestDevice(scene.frontend, port: 1).enumerate()
            try await scene.toolstack.detach(scene.nodes)
            #expect(scene.usb.owner(at: USBBusAddress("1-1")!) == nil)
            #expect(scene.usb.owner(at: USBBusAddress("1-2")!) == nil)
            #expect(await eventually { await scene.frontend.connection == nil })
            try await scene.bystanderIsServed()
        }

        /// A driver domain's: whoever removes it has said nothing before. What hangs is let go of, and the devices are given
        /// back; nothing of it is written again.
        @Test(arguments: [false, true])
        func itsDirectoryIsRemoved(whileURBsHang: Bool) async throws {
            let scene = try await USBScene(
                ports: [1: "1-1", 2: "1-2"],
                plugging: [("1-1", SimulatedDisk(try USBScene.medium(seed: 1))), ("1-2", SimulatedKeyboard())]
            )
            let disk = try await GuestDevice(scene.frontend, port: 1)
            try await disk.enumerate()
            if whileURBsHang { try await hang(scene, disk) }
            try await scene.host.store.remove(scene.nodes.path.relative)
            try await isLetGo(scene)
            #expect(try await scene.host.store.directory(scene.nodes.path.relative) == nil)
            try await scene.bystanderIsServed()
        }

        /// The toolstack takes a controller away while nothing of it will ever be answered.
        @Test func destroyedWhileURBsHang() async throws {
            let scene = try await USBScene(
                ports: [1: "1-1", 2: "1-2"],
                plugging: [("1-1", SimulatedDisk(try USBScene.medium(seed: 1))), ("1-2", SimulatedKeyboard())]
            )
            let disk = try await GuestDevice(scene.frontend, port: 1)
            try await disk.enumerate()
            let tickets = try await hang(scene, disk)
            try await scene.toolstack.detach(scene.nodes)
            try await isLetGo(scene)
            // As of a device that is gone; xen-hcd may have given up on them before.
            for ticket in tickets {
                let status = try? await scene.frontend.outcome(of: ticket).status
                #expect(status == nil || status == .shutdown)
            }
            try await scene.bystanderIsServed()
        }

        /// A full ring of URBs: some with the device, some parked behind one that may not be short, a control request.
        @discardableResult
        private func hang(_ scene: USBScene, _ disk: GuestDevice) async throws -> [URBTicket] {
            let faults = scene.usb.faults(at: USBBusAddress("1-1")!)
            faults?.add(.silence, endpoint: 0x81, count: 100)
            faults?.add(.silence, endpoint: 0, count: 100)
            var tickets: [URBTicket] = []
            for _ in 0..<4 { tickets.append(try await scene.frontend.submit(disk.bulk(.in, 512))) }
            for _ in 0..<9 { tickets.append(try await scene.frontend.submit(disk.bulk(.in, 100, shortNotOK: true))) }
            for _ in 0..<3 {
                let setup = SetupPacket(0x80, 6, value: 0x100, length: 18)
                tickets.append(try await scene.frontend.submit(disk.controlURB(setup)))
            }
            #expect(try await eventually { try await scene.counter("in-flight") == 16 })
            return tickets
        }

        /// Nothing of the guest's is mapped but the bystander's two rings, and the host has its devices.
        private func isLetGo(_ scene: USBScene) async throws {
            for place in ["1-1", "1-2"] {
                #expect(await eventually { scene.usb.owner(at: USBBusAddress(place)!) == nil }, "\(place)")
            }
            #expect(await eventually { scene.machine.usage(of: guestDomain)?.pagesMappedByOthers == 2 })
        }

        /// libxl writes 6 itself for a `qusb` whose guest is gone: stop, release, do not write back.
        @Test func aForeignSixEndsIt() async throws {
            let scene = try await USBScene(
                kind: .qusb,
                ports: [1: "1-1"],
                plugging: [("1-1", SimulatedKeyboard())]
            )
            _ = try await GuestDevice(scene.frontend, port: 1)
            try await scene.writeBackendKey("state", "6")
            #expect(await eventually { scene.usb.owner(at: USBBusAddress("1-1")!) == nil })
            #expect(try await scene.backendKey("state") == "6")
            try await scene.bystanderIsServed()
        }

        @Test(arguments: [
            ("0", "4", "usb-ver"), ("3", "4", "usb-ver"), ("2", "0", "num-ports"), ("2", "32", "num-ports"),
        ])
        func nonsenseOfTheToolstack(version: String, count: String, key: String) async throws {
            let scene = try await USBScene(
                keys: [(USBKeys.version, version), (USBKeys.portCount, count)],
                connects: false
            )
            #expect(try await eventually { try await scene.errorNode()?.contains("\(key)=") ?? false })
            #expect(try await scene.backendKey("state") != "2")
            try await scene.end()
        }

        static let wrongKeys: [(String, [(String, String?)])] = [
            ("urb-ring-ref is missing", [("urb-ring-ref", nil)]),
            ("conn-ring-ref repeats", [("conn-ring-ref", "1"), ("urb-ring-ref", "1")]),
            ("cannot map the ring", [("conn-ring-ref", "77777")]),
            ("bind port 4000", [("event-channel", "4000")]),
            ("protocol is unknown", [("protocol", "vax-abi")]),
        ]

        @Test(arguments: wrongKeys)
        func wrongKeysOfTheFrontend(says: String, keys: [(String, String?)]) async throws {
            let scene = try await USBScene(connects: false)
            let raw = try await RawController(scene)
            _ = try? await raw.connect(adding: keys)
            try await scene.isClosed(saying: says)
            // The bystander's two rings.
            #expect(scene.machine.usage(of: guestDomain)?.pagesMappedByOthers == 2)
            try await scene.end()
        }
    }
}
