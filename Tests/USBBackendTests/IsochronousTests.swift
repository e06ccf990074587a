// Sound through the ring: packets in time, each with its own outcome.

internal import FrontendDrivers
internal import HostUSB
internal import SharedRing
internal import SimulatedHost
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import USBBackend

extension SimulatedControllerTests {
    @Suite struct IsochronousTests {
        private static let packets = 16
        private static let inFlight = 6
        /// So long that what is in flight lasts 3/4 s: a busy machine's pauses are not the stream's.
        private static let frame = Duration.milliseconds(8)

        private func sound(
            _ direction: SimulatedSound.Direction,
            _ scene: USBScene,
            port: Int
        ) async throws -> GuestDevice {
            let device = try await GuestDevice(scene.frontend, port: port, address: 11)
            try await device.enumerate()
            #expect(try await device.control(SetupPacket(1, 11, value: 1, index: 1)).status == .okay)
            return device
        }

        private func urb(_ device: GuestDevice, _ direction: USBDirection, gap: Int = 0) -> FrontURB {
            let stride = SimulatedSamples.packetBytes + gap
            let packets = (0..<IsochronousTests.packets).map {
                IsochronousPacket(offset: $0 * stride, byteCount: SimulatedSamples.packetBytes)
            }
            return FrontURB(
                USBPipe(device.port, .isochronous, device: device.address, endpoint: 1, direction),
                .isochronous(interval: 1, packets: packets),
                byteCount: stride * IsochronousTests.packets
            )
        }

        /// Records `count` URBs, several of them always in flight.
        /// - Returns: the samples' numbers of all packets.
        private func record(_ device: GuestDevice, _ count: Int, gap: Int) async throws -> [UInt32] {
            var tickets: [URBTicket] = []
            var submitted = 0
            var numbers: [UInt32] = []
            while submitted < count || !tickets.isEmpty {
                while tickets.count < IsochronousTests.inFlight, submitted < count {
                    tickets.append(try await device.frontend.submit(urb(device, .in, gap: gap)))
                    submitted += 1
                }
                let outcome = try await device.frontend.outcome(of: tickets.removeFirst())
                #expect(outcome.status == .okay && outcome.response.errorCount == 0)
                let whole = SimulatedSamples.packetBytes
                #expect(outcome.packets.allSatisfy { $0.status == .okay && $0.byteCount == whole })
                let stride = whole + gap
                for index in 0..<IsochronousTests.packets where outcome.bytes.count >= (index + 1) * stride {
                    let bytes = Array(outcome.bytes[index * stride..<index * stride + SimulatedSamples.packetBytes])
                    numbers.append(SimulatedSamples.first(in: bytes) ?? .max)
                }
            }
            return numbers
        }

        private func isUnbroken(_ numbers: [UInt32]) -> Bool {
            zip(numbers, numbers.dropFirst()).allSatisfy { $1 == $0 &+ UInt32(SimulatedSamples.perPacket) }
        }

        @Test(arguments: [0, 60])
        func aMicrophoneWithoutGapsUnderBulkLoad(gap: Int) async throws {
            let microphone = SimulatedSound(.microphone)
            let scene = try await USBScene(
                ports: [1: "1-1", 2: "1-2"],
                frame: Self.frame,
                plugging: [("1-1", SimulatedDisk(try USBScene.medium(seed: 1))), ("1-2", microphone)]
            )
            let device = try await sound(.microphone, scene, port: 2)
            let disk = try await GuestDevice(scene.frontend, port: 1)
            try await disk.enumerate()
            let load = Task {
                var rounds = 0
                while !Task.isCancelled {
                    let bytes = try await disk.read(block: 64, count: 128)
                    #expect(bytes.count == 65536)
                    rounds += 1
                }
                return rounds
            }
            let numbers = try await record(device, 40, gap: gap)
            load.cancel()
            #expect(try await load.value > 0)
            #expect(numbers.count == 40 * IsochronousTests.packets)
            #expect(isUnbroken(numbers))
            #expect(microphone.counts.gaps == 0)
            #expect(try await scene.counter("iso-packets") == UInt64(numbers.count))
            try await scene.end()
        }

        @Test(arguments: [0, 28])
        func aLoudspeakerHearsEverySample(gap: Int) async throws {
            let loudspeaker = SimulatedSound(.loudspeaker)
            let scene = try await USBScene(ports: [1: "1-1"], frame: Self.frame, plugging: [("1-1", loudspeaker)])
            let device = try await sound(.loudspeaker, scene, port: 1)
            let stride = SimulatedSamples.packetBytes + gap
            var tickets: [URBTicket] = []
            for number in 0..<24 {
                if tickets.count == IsochronousTests.inFlight {
                    #expect(try await scene.frontend.outcome(of: tickets.removeFirst()).status == .okay)
                }
                var bytes = [UInt8](repeating: 0xEE, count: stride * IsochronousTests.packets)
                for index in 0..<IsochronousTests.packets {
                    let packet = SimulatedSamples.packet(UInt64(number * IsochronousTests.packets + index))
                    bytes.replaceSubrange(index * stride..<index * stride + packet.count, with: packet)
                }
                tickets.append(try await scene.frontend.submit(urb(device, .out, gap: gap), bytes))
            }
            for ticket in tickets { #expect(try await scene.frontend.outcome(of: ticket).status == .okay) }
            let counts = loudspeaker.counts
            #expect(counts.packets == UInt64(24 * IsochronousTests.packets))
            #expect(counts.brokenPackets == 0 && counts.gaps == 0)
            try await scene.end()
        }

        /// Sixteen URBs in the ring have start frames one behind the other.
        @Test func startFramesFollowOneAnother() async throws {
            let scene = try await USBScene(ports: [1: "1-1"], plugging: [("1-1", SimulatedSound(.microphone))])
            let device = try await sound(.microphone, scene, port: 1)
            var tickets: [URBTicket] = []
            for _ in 0..<4 { tickets.append(try await scene.frontend.submit(urb(device, .in))) }
            var frames: [UInt16] = []
            for ticket in tickets { frames.append(try await scene.frontend.outcome(of: ticket).response.startFrame) }
            #expect(zip(frames, frames.dropFirst()).allSatisfy { $1 == $0 &+ UInt16(IsochronousTests.packets) })
            try await scene.end()
        }

        @Test func aStreamIsTakenBack() async throws {
            let scene = try await USBScene(ports: [1: "1-1"], plugging: [("1-1", SimulatedSound(.microphone))])
            let device = try await sound(.microphone, scene, port: 1)
            var tickets: [URBTicket] = []
            for _ in 0..<6 { tickets.append(try await scene.frontend.submit(urb(device, .in))) }
            for ticket in tickets.reversed() { try await scene.frontend.unlink(ticket) }
            for ticket in tickets {
                let status = try await scene.frontend.outcome(of: ticket).status
                #expect(status == .unlinked || status == .okay)
            }
            #expect(isUnbroken(try await record(device, 4, gap: 0)))
            try await scene.end()
        }
    }
}
