// URBs that are taken back, and transfers that do not end as they should: each is answered exactly once.

internal import FrontendDrivers
internal import HostUSB
internal import SharedRing
internal import Testing
internal import XenWire

@testable internal import USBBackend

extension SimulatedControllerTests {
    @Suite struct UnlinkTests {
        private static let place = USBBusAddress("1-1")!

        private func scene() async throws -> (USBScene, GuestDevice) {
            let scene = try await USBScene(
                ports: [1: "1-1", 2: "1-2"],
                plugging: [
                    ("1-1", SimulatedDisk(try USBScene.medium(seed: 1))), ("1-2", SimulatedKeyboard()),
                ]
            )
            let disk = try await GuestDevice(scene.frontend, port: 1)
            try await disk.enumerate()
            return (scene, disk)
        }

        /// The ring is full but for one place: fifteen URBs that nobody answers, and the unlink of each.
        @Test func aFullRingCanBeTakenBack() async throws {
            let (scene, disk) = try await scene()
            scene.usb.faults(at: UnlinkTests.place)?.add(.silence, endpoint: 0x81, count: 100)
            var tickets: [URBTicket] = []
            for number in 0..<15 {
                tickets.append(try await scene.frontend.submit(disk.bulk(.in, 512, shortNotOK: number % 2 == 0)))
            }
            for ticket in tickets.reversed() { #expect(try await scene.frontend.unlink(ticket) == .okay) }
            for ticket in tickets { #expect(try await scene.frontend.outcome(of: ticket).status == .unlinked) }
            #expect(try await scene.counter("unlinked") == 15)
            #expect(await scene.frontend.lastFault == nil)
            try await scene.end()
        }

        /// Taken back at any moment of a transfer's life: both answers come, each once.
        @Test func unlinksRaceWithCompletions() async throws {
            let (scene, disk) = try await scene()
            for round in 0..<200 {
                let urb = disk.controlURB(SetupPacket(0x80, 6, value: 0x100, length: 18))
                let ticket = try await scene.frontend.submit(urb)
                if round % 3 == 0 { try await Task.sleep(for: .microseconds(round * 3)) }
                let unlink = try await scene.frontend.unlink(ticket)
                let outcome = try await scene.frontend.outcome(of: ticket)
                #expect(unlink == .okay || unlink == .notFound)
                #expect(outcome.status == .okay || outcome.status == .unlinked)
                if outcome.status == .okay { #expect(outcome.bytes.count == 18) }
            }
            #expect(await scene.frontend.lastFault == nil)
            #expect(try await eventually { try await scene.counter("in-flight") == 0 })
            try await scene.end()
        }
    }
}
