// A SuperSpeed disk that its guest takes for a high-speed one: packets of 1024 bytes, asked for by halves.

internal import FrontendDrivers
internal import HostUSB
internal import SharedRing
internal import SimulatedHost
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import USBBackend

extension SimulatedControllerTests {
    @Suite struct SuperSpeedTests {
        private func scene(_ speed: USBSpeed = .super) async throws -> (USBScene, GuestDevice) {
            let scene = try await USBScene(
                ports: [1: "1-1"],
                plugging: [("1-1", SimulatedDisk(try USBScene.medium(seed: 1), speed: speed))]
            )
            let disk = try await GuestDevice(scene.frontend, port: 1)
            try await disk.enumerate()
            return (scene, disk)
        }

        /// Reads 16 KiB in pieces, all of them in the ring before the first is answered where that is possible.
        private func read(_ scene: USBScene, _ disk: GuestDevice, _ pieces: [Int], isFlagged: Bool) async throws {
            #expect(try await disk.asksToRead(block: 40, blocks: 32))
            var bytes: [UInt8] = []
            for part in stride(from: 0, to: pieces.count, by: 12) {
                var tickets: [URBTicket] = []
                for count in pieces[part..<min(part + 12, pieces.count)] {
                    tickets.append(try await scene.frontend.submit(disk.bulk(.in, count, shortNotOK: isFlagged)))
                }
                for ticket in tickets {
                    let outcome = try await scene.frontend.outcome(of: ticket)
                    #expect(outcome.status == .okay)
                    bytes += outcome.bytes
                }
            }
            #expect(bytes == USBScene.pattern(40 * 512, 16384, seed: 1))
            #expect(try await disk.commandStatus() == 0)
        }

        static let pieces: [[Int]] = [
            [Int](repeating: 512, count: 32),
            [1536, 512, 512, 512, 2560, 1024, 9728],
            [512, 15360, 512],
            [15872, 512],
        ]

        @Test(arguments: pieces, [false, true])
        func aReadInOddPieces(pieces: [Int], isFlagged: Bool) async throws {
            let (scene, disk) = try await scene()
            for _ in 0..<3 { try await read(scene, disk, pieces, isFlagged: isFlagged) }
            #expect(try await scene.counter("overflows") == 0)
            try await scene.end()
        }

        /// Within a packet of 512 bytes it is too much, at either speed.
        @Test(arguments: [USBSpeed.high, .super], [100, 612])
        func aPieceThatCutsAPacketOverflows(speed: USBSpeed, count: Int) async throws {
            let (scene, disk) = try await scene(speed)
            #expect(try await disk.asksToRead(blocks: 8))
            #expect(try await scene.frontend.perform(disk.bulk(.in, count)).status == .babble)
            try await disk.reset()
            #expect(try await disk.read(block: 9, count: 3) == USBScene.pattern(9 * 512, 1536, seed: 1))
            try await scene.end()
        }

        /// Half of a packet that nobody asks for: gone with a reset, and with a halt that is cleared.
        @Test(arguments: [false, true])
        func whatIsKeptIsForgotten(byReset: Bool) async throws {
            let (scene, disk) = try await scene()
            #expect(try await disk.asksToRead(blocks: 2))
            #expect(try await scene.frontend.perform(disk.bulk(.in, 512)).bytes == USBScene.pattern(0, 512, seed: 1))
            if byReset {
                try await disk.reset()
            } else {
                #expect(try await disk.control(SetupPacket(0x21, 0xFF)).status == .okay)
                #expect(try await disk.control(SetupPacket(0x02, 1, value: 0, index: 0x81)).status == .okay)
            }
            #expect(try await disk.read(block: 3, count: 3) == USBScene.pattern(1536, 1536, seed: 1))
            try await scene.end()
        }

        /// It dies with the worker, and the guest must not read on as if nothing was missing.
        @Test func whatIsKeptIsMissedAfterADeath() async throws {
            let (scene, disk) = try await scene()
            #expect(try await disk.asksToRead(blocks: 4))
            #expect(try await scene.frontend.perform(disk.bulk(.in, 512)).bytes == USBScene.pattern(0, 512, seed: 1))
            try await scene.kill()
            try scene.revive()
            #expect(try await scene.frontend.perform(disk.bulk(.in, 512)).status == .ioError)
            try await disk.reset()
            #expect(try await disk.read(block: 3, count: 3) == USBScene.pattern(1536, 1536, seed: 1))
            try await scene.end()
        }
    }
}
