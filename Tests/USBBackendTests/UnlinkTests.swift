// URBs that are taken back, and transfers that do not end as they should: each is answered exactly once.

internal import FrontendDrivers
internal import HostUSB
internal import SharedRing
internal import SimulatedHost
internal import TestSupport
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

        /// Some requests are answered by the device, some by the host's stack, some by us: in the order in which they came
        /// (Linux's usbtest, case 10).
        @Test func controlRequestsEndInTheirOrder() async throws {
            let (scene, disk) = try await scene()
            let delay = Duration.milliseconds(300)
            for setup in [SetupPacket(0x02, 1, index: 0x81), SetupPacket(0x02, 1), SetupPacket(0x80, 8, length: 1)] {
                scene.usb.faults(at: UnlinkTests.place)?.add(.delay(delay), endpoint: 0)
                let began = ContinuousClock.now
                let descriptor = SetupPacket(0x80, 6, value: 0x100, length: 18)
                let first = try await scene.frontend.submit(disk.controlURB(descriptor))
                let second = try await scene.frontend.submit(disk.controlURB(setup))
                #expect(try await scene.frontend.outcome(of: second).status == .okay)
                #expect(ContinuousClock.now - began >= delay)
                #expect(try await scene.frontend.outcome(of: first).bytes.count == 18)
            }
            try await scene.end()
        }

        /// A short transfer that should not have been short: what is queued behind it must not read what is not its own.
        @Test func aShortTransferEndsItsQueue() async throws {
            let (scene, disk) = try await scene()
            // INQUIRY: 36 bytes come, 12288 were asked for in three pieces.
            let command: [UInt8] = [0x12, 0, 0, 0, 36, 0]
            #expect(try await disk.command(command, byteCount: 12288, isIn: true) == .okay)
            scene.usb.faults(at: UnlinkTests.place)?.add(.delay(.milliseconds(300)), endpoint: 0x81)
            var tickets: [URBTicket] = []
            for _ in 0..<3 { tickets.append(try await scene.frontend.submit(disk.bulk(.in, 4096, shortNotOK: true))) }
            var counts: [Int] = []
            for ticket in tickets {
                let outcome = try await scene.frontend.outcome(of: ticket)
                #expect(outcome.status == .okay)
                counts.append(outcome.bytes.count)
            }
            #expect(counts == [36, 0, 0])
            #expect(try await disk.commandStatus() == 0)
            #expect(try await disk.read(block: 3, count: 1) == USBScene.pattern(1536, 512, seed: 1))
            try await scene.end()
        }

        /// As usb-storage reads: one piece after the other, all of them queued, none short.
        @Test func piecesOfOneReadArriveInOrder() async throws {
            let (scene, disk) = try await scene()
            let command = GuestDevice.transfer10(0x28, block: 16, count: 120)
            for _ in 0..<5 {
                #expect(try await disk.command(command, byteCount: 61440, isIn: true) == .okay)
                var tickets: [URBTicket] = []
                for _ in 0..<15 {
                    tickets.append(try await scene.frontend.submit(disk.bulk(.in, 4096, shortNotOK: true)))
                }
                var bytes: [UInt8] = []
                for ticket in tickets { bytes += try await scene.frontend.outcome(of: ticket).bytes }
                #expect(bytes == USBScene.pattern(8192, 61440, seed: 1))
                #expect(try await disk.commandStatus() == 0)
            }
            try await scene.end()
        }

        @Test(arguments: [
            (SimulatedFault.stall, URBStatus.stall), (.babble, .babble), (.excess, .babble),
            (.transactionError, .ioError),
        ])
        func devicesThatMisbehave(fault: SimulatedFault, status: URBStatus) async throws {
            let (scene, disk) = try await scene()
            scene.usb.faults(at: UnlinkTests.place)?.add(fault, endpoint: 0x81)
            #expect(try await disk.asksToRead(blocks: 1))
            #expect(try await scene.frontend.perform(disk.bulk(.in, 512)).status == status)
            if fault == .stall {
                #expect(try await scene.frontend.perform(disk.bulk(.in, 512)).status == .stall)
                // CLEAR_FEATURE(ENDPOINT_HALT)
                #expect(try await disk.control(SetupPacket(2, 1, value: 0, index: 0x81)).status == .okay)
            }
            // What usb-storage does: reset, and again.
            try await disk.reset()
            #expect(try await disk.read(block: 9, count: 2) == USBScene.pattern(9 * 512, 1024, seed: 1))
            #expect(try await scene.counter("resets") == 1)
            try await scene.end()
        }

        @Test func aDeviceThatVanishesInTheMiddle() async throws {
            let (scene, disk) = try await scene()
            scene.usb.faults(at: UnlinkTests.place)?.add(.vanish, endpoint: 0x81)
            #expect(try await disk.asksToRead(blocks: 8))
            #expect(try await scene.frontend.perform(disk.bulk(.in, 4096)).status == .shutdown)
            try await scene.frontend.waitForDevice(on: disk.port, present: false)
            try await scene.says("waiting for 1-1", of: 1)
            try scene.usb.plug(SimulatedDisk(try USBScene.medium(seed: 3)), at: UnlinkTests.place)
            let next = try await GuestDevice(scene.frontend, port: 1)
            try await next.enumerate()
            #expect(try await next.read(block: 1, count: 1) == USBScene.pattern(512, 512, seed: 3))
            try await scene.end()
        }

        @Test func keysArrive() async throws {
            let keyboard = SimulatedKeyboard()
            let scene = try await USBScene(ports: [1: "1-3"], plugging: [("1-3", keyboard)])
            let device = try await GuestDevice(scene.frontend, port: 1)
            try await device.enumerate()
            let urb = FrontURB(
                USBPipe(device.port, .interrupt, device: 5, endpoint: 1, .in),
                .interrupt(interval: 10),
                byteCount: 8
            )
            for key in 4..<8 as Range<UInt8> {
                let ticket = try await scene.frontend.submit(urb)
                keyboard.press(key)
                let down = try await scene.frontend.outcome(of: ticket)
                #expect(down.status == .okay && down.bytes == [0, 0, key, 0, 0, 0, 0, 0])
                let up = try await scene.frontend.perform(urb)
                #expect(up.bytes == [UInt8](repeating: 0, count: 8))
            }
            try await scene.end()
        }
    }
}
