// Devices come and go: by their place, by rules, pulled out under load, at speeds that a controller has or has not.

internal import FrontendDrivers
internal import HostUSB
internal import SharedRing
internal import SimulatedHost
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import USBBackend

extension SimulatedControllerTests {
    @Suite struct PortTests {
        private static let place = USBBusAddress("1-1")!

        @Test func aPortIsFilledAndEmptied() async throws {
            let scene = try await USBScene()
            try scene.usb.plug(SimulatedDisk(try USBScene.medium(seed: 1)), at: PortTests.place)
            let port = USBPort(3)!
            for round in 0..<3 {
                try await scene.assign("1-1", in: 3)
                let disk = try await GuestDevice(scene.frontend, port: 3)
                try await disk.enumerate()
                #expect(try await disk.read(block: round, count: 1) == USBScene.pattern(512 * round, 512, seed: 1))
                try await scene.assign("", in: 3)
                try await scene.frontend.waitForDevice(on: port, present: false)
                #expect(await eventually { scene.usb.owner(at: PortTests.place) == nil })
                #expect(try await scene.detail("port 3") == nil)
            }
            try await scene.end()
        }

        @Test(arguments: [
            ("0781:5581", "1-1"), ("class=03", "1-2.3"), ("serial=4C530001", "1-1"), ("046d:c31c", "1-2.3"),
            ("0781:5581/class=08/serial=4C530001", "1-1"),
        ])
        func aRuleFindsItsDeviceWhereverItIsPluggedIn(rule: String, place: String) async throws {
            let scene = try await USBScene(ports: [2: rule])
            try await scene.says("waiting for \(rule)", of: 2)
            func function() throws -> any SimulatedFunction {
                place == "1-1" ? SimulatedDisk(try USBScene.medium(seed: 1)) : SimulatedKeyboard()
            }
            for place in [place, "1-4", "3-1.5"] {
                try scene.usb.plug(try function(), at: USBBusAddress(place)!)
                try await scene.says("\(place): ", of: 2)
                try await GuestDevice(scene.frontend, port: 2).enumerate()
                scene.usb.unplug(USBBusAddress(place)!)
                try await scene.frontend.waitForDevice(on: USBPort(2)!, present: false)
            }
            try await scene.end()
        }

        @Test(arguments: [
            ("1-1-1", "neither a place"), ("1-", "neither a place"), ("../1-1", "neither a place"), ("0-1", "neither"),
            ("class=09", "hubs"), ("1-1.1.1.1.1.1.1", "neither a place"), ("zzzz:0001", "cannot be understood"),
            ("2-1", "belongs to"), ("1-7", "hub"), ("9-9", "waiting for 9-9"),
        ])
        func busIdsThatCannotBe(assignment: String, says: String) async throws {
            let scene = try await USBScene(ports: [1: assignment], plugging: [("1-7", HubFunction())])
            try await scene.says(says, of: 1)
            #expect(try await scene.backendKey("state") == "4")
            // The port is as good as ever.
            try scene.usb.plug(SimulatedKeyboard(), at: PortTests.place)
            try await scene.assign("1-1", in: 1)
            try await GuestDevice(scene.frontend, port: 1).enumerate()
            try await scene.end()
        }

        @Test func speedsThatCannotBeAreRefusedWithAReason() async throws {
            let scene = try await USBScene(
                keys: [(USBKeys.version, "1")],
                ports: [1: "1-1", 2: "1-2", 3: "1-3"],
                plugging: [
                    ("1-1", SimulatedDisk(try USBScene.medium(seed: 1), speed: .high)), ("1-2", SimulatedKeyboard()),
                    ("1-3", SimulatedDisk(try USBScene.medium(seed: 1), speed: .super)),
                ]
            )
            try await scene.says("failed: 1-1: a high-speed device", of: 1)
            try await scene.says("failed: 1-3: a SuperSpeed device", of: 3)
            #expect(try await scene.frontend.waitForDevice(on: USBPort(2)!) == .low)
            // What cannot be given to the guest is given back.
            #expect(await eventually { scene.usb.owner(at: PortTests.place) == nil })
            try await scene.end()
        }

        @Test func aSuperSpeedDiskIsAHighSpeedOne() async throws {
            let scene = try await USBScene(
                ports: [1: "1-1"],
                plugging: [("1-1", SimulatedDisk(try USBScene.medium(seed: 1), speed: .super))]
            )
            let disk = try await GuestDevice(scene.frontend, port: 1)
            #expect(await scene.frontend.speed(of: disk.port) == .high)
            try await disk.enumerate()
            #expect(try await disk.descriptor(1, length: 18).bytes[2...3] == [0, 2])
            let head = try await disk.descriptor(2, length: 9).bytes
            #expect(head.count == 9)
            let whole = try await disk.descriptor(2, length: UInt16(head[2])).bytes
            let parsed = USBConfiguration(whole)
            let configuration = try #require(parsed)
            #expect(configuration.interfaces.flatMap(\.endpoints).allSatisfy { $0.maxPacket == 512 })
            #expect(try await disk.descriptor(15, length: 5).status == .stall)
            #expect(try await disk.read(block: 7, count: 32) == USBScene.pattern(7 * 512, 16384, seed: 1))
            try await scene.end()
        }

        /// Pulled out and put back twenty times while the guest reads and waits for keys.
        @Test func pulledOutUnderLoad() async throws {
            let scene = try await USBScene(ports: [1: "1-1", 2: "1-2"], plugging: [("1-2", SimulatedKeyboard())])
            let keyboard = try await GuestDevice(scene.frontend, port: 2, address: 9)
            try await keyboard.enumerate()
            let key = FrontURB(
                USBPipe(keyboard.port, .interrupt, device: 9, endpoint: 1, .in),
                .interrupt(interval: 10),
                byteCount: 8
            )
            let waiting = try await scene.frontend.submit(key)
            for round in 0..<20 {
                try scene.usb.plug(SimulatedDisk(try USBScene.medium(seed: round)), at: PortTests.place)
                let disk = try await GuestDevice(scene.frontend, port: 1)
                try await disk.enumerate()
                #expect(try await disk.read(block: 0, count: 1) == USBScene.pattern(0, 512, seed: round))
                // A read that nobody answers, and one behind it.
                scene.usb.faults(at: PortTests.place)?.add(.silence, endpoint: 0x81)
                let tickets = [
                    try await scene.frontend.submit(disk.bulk(.in, 512)),
                    try await scene.frontend.submit(disk.bulk(.in, 512, shortNotOK: true)),
                ]
                scene.usb.unplug(PortTests.place)
                for ticket in tickets {
                    let status = try await scene.frontend.outcome(of: ticket).status
                    #expect(status == .shutdown || status == .noDevice)
                }
                try await scene.frontend.waitForDevice(on: disk.port, present: false)
                #expect(try await disk.descriptor(1, length: 18).status == .noDevice)
            }
            // The neighbour has noticed nothing.
            try await scene.frontend.unlink(waiting)
            #expect(try await scene.frontend.outcome(of: waiting).status == .unlinked)
            #expect(try await keyboard.descriptor(1, length: 18).status == .okay)
            try await scene.end()
        }
    }
}

/// Something that says it is a hub.
final class HubFunction: SimulatedFunction {
    let strings = SimulatedStrings(product: "Simulated hub")
    let speed = USBSpeed.high
    let descriptors = USBDescriptors(
        device: [18, 1, 0, 2, 9, 0, 1, 64, 0x6B, 0x1D, 2, 0, 0, 1, 0, 0, 0, 1],
        configurations: [[9, 2, 9, 0, 0, 1, 0, 0xE0, 0]]
    )
}
