// A worker that dies with URBs in flight, and its successor: ports stay, devices come back, drivers try again.

internal import FrontendDrivers
internal import HostUSB
internal import SharedRing
internal import SimulatedHost
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import USBBackend

extension SimulatedControllerTests {
    @Suite struct TakeoverTests {
        private static let place = USBBusAddress("1-1")!

        /// Reads as usb-storage does: after an error it resets the device and repeats the command.
        private func read(_ disk: GuestDevice, block: Int, count: Int) async throws -> [UInt8] {
            for _ in 0..<5 {
                let bytes = try await disk.read(block: block, count: count)
                if !bytes.isEmpty { return bytes }
                for _ in 0..<5 where try await disk.descriptor(1, length: 64, address: 0).status != .okay {}
                _ = try await disk.control(SetupPacket(0, 5, value: UInt16(disk.address)), address: 0)
                _ = try await disk.control(SetupPacket(0, 9, value: 1))
            }
            return []
        }

        @Test func aDiskThatIsBeingReadGoesOn() async throws {
            let scene = try await USBScene(
                ports: [1: "0781:5581/serial=READ"],
                plugging: [("1-1", SimulatedDisk(try USBScene.medium(seed: 1), serial: "READ"))]
            )
            let disk = try await GuestDevice(scene.frontend, port: 1)
            try await disk.enumerate()
            let reader = Task {
                var blocks = 0
                while !Task.isCancelled {
                    let bytes = try await self.read(disk, block: blocks % 1900, count: 64)
                    guard bytes == USBScene.pattern(blocks % 1900 * 512, 32768, seed: 1) else { return -1 }
                    blocks += 64
                }
                return blocks
            }
            for death in 0..<6 {
                try await Task.sleep(for: .milliseconds(20))
                try await scene.kill()
                if death % 2 == 0 { try await Task.sleep(for: .milliseconds(10)) }
                try scene.revive()
                try await scene.says("1-1: ", of: 1)
            }
            try await Task.sleep(for: .milliseconds(50))
            reader.cancel()
            #expect(try await reader.value > 0)
            // The guest was never told of anything.
            #expect(await scene.frontend.statistics?.portEvents == 1)
            #expect(await scene.frontend.lastFault == nil)
            #expect(try await scene.backendKey("state") == "4")
            try await scene.end()
        }

        @Test func whatIsInFlightIsAnsweredSoThatDriversTryAgain() async throws {
            let scene = try await USBScene(ports: [1: "1-1"], plugging: [("1-1", SimulatedKeyboard())])
            let device = try await GuestDevice(scene.frontend, port: 1)
            try await device.enumerate()
            let key = FrontURB(
                USBPipe(device.port, .interrupt, device: 5, endpoint: 1, .in),
                .interrupt(interval: 10),
                byteCount: 8
            )
            for peaceful in [false, true, false] {
                var tickets: [URBTicket] = []
                for _ in 0..<10 { tickets.append(try await scene.frontend.submit(key)) }
                #expect(try await eventually { try await scene.counter("in-flight") == 10 })
                if peaceful { try await scene.retire() } else { try await scene.kill() }
                try scene.revive()
                for ticket in tickets { #expect(try await scene.frontend.outcome(of: ticket).status == .ioError) }
                // The address that the predecessor remembered still holds.
                #expect(try await device.descriptor(1, length: 18).bytes.count == 18)
            }
            #expect(await scene.frontend.statistics?.portEvents == 1)
            try await scene.end()
        }

        /// What a guest set once holds through one death after another, also of a life that was too short to have the device
        /// back: here the setting of a microphone in which it has an endpoint.
        @Test func alternateSettingsSurvive() async throws {
            let scene = try await USBScene(ports: [2: "1-1"], plugging: [("1-1", SimulatedSound(.microphone))])
            let device = try await GuestDevice(scene.frontend, port: 2)
            try await device.enumerate()
            #expect(try await device.control(SetupPacket(1, 11, value: 1, index: 1)).status == .okay)
            let urb = FrontURB(
                USBPipe(device.port, .isochronous, device: 5, endpoint: 1, .in),
                .isochronous(interval: 1, packets: [IsochronousPacket(offset: 0, byteCount: 192)]),
                byteCount: 192
            )
            for isShort in [false, false, true, false] {
                try await scene.kill()
                try scene.revive()
                if isShort { continue }
                let outcome = try await scene.frontend.perform(urb)
                #expect(outcome.status == .okay && outcome.packets.map(\.byteCount) == [192])
            }
            try await scene.end()
        }

        /// Between the death and the successor the device was pulled out, or another one took its place.
        @Test(arguments: [false, true])
        func aDeviceThatWentMeanwhile(isReplaced: Bool) async throws {
            let scene = try await USBScene(
                ports: [1: "1-1"],
                plugging: [("1-1", SimulatedDisk(try USBScene.medium(seed: 1)))]
            )
            let disk = try await GuestDevice(scene.frontend, port: 1)
            try await disk.enumerate()
            try await scene.kill()
            scene.usb.unplug(TakeoverTests.place)
            if isReplaced { try scene.usb.plug(SimulatedDisk(try USBScene.medium(seed: 2)), at: TakeoverTests.place) }
            try scene.revive()
            if isReplaced {
                #expect(await eventually { await scene.frontend.statistics?.portEvents == 3 })
                let next = try await GuestDevice(scene.frontend, port: 1, address: 6)
                try await next.enumerate()
                #expect(try await next.read(block: 0, count: 1) == USBScene.pattern(0, 512, seed: 2))
            } else {
                try await scene.frontend.waitForDevice(on: disk.port, present: false)
                #expect(try await disk.descriptor(1, length: 18).status == .noDevice)
            }
            try await scene.end()
        }

        /// Devices that come into ports, and leave them, while nobody is there to see to it.
        @Test func assignmentsOfTheMeantime() async throws {
            let scene = try await USBScene(
                ports: [1: "1-1"],
                plugging: [("1-1", SimulatedDisk(try USBScene.medium(seed: 1))), ("1-2", SimulatedKeyboard())]
            )
            try await GuestDevice(scene.frontend, port: 1).enumerate()
            try await scene.kill()
            try await scene.assign("", in: 1)
            try await scene.assign("1-2", in: 4)
            try scene.revive()
            try await scene.frontend.waitForDevice(on: USBPort(1)!, present: false)
            try await GuestDevice(scene.frontend, port: 4).enumerate()
            try await scene.end()
        }
    }
}
