// Isochronous streams: packets in their intervals, gaps where nobody asked, errors in single packets.

import HostIO
import HostUSB
import SharedRing
import Synchronization
import TestSupport
import Testing

@testable import SimulatedHost

@Suite struct SimulatedSoundTests {
    private static let perTransfer = 8

    private static func transfer(_ owner: Owner, _ sound: SimulatedSound, slot: UInt32) -> USBTransfer {
        for index in 0..<perTransfer { owner.device.packets[slot, index].byteCount = 192 }
        return USBTransfer(
            .isochronous,
            endpoint: sound.endpoint,
            offset: Int(slot) * Owner.slotBytes,
            byteCount: perTransfer * 192,
            packetCount: perTransfer
        )
    }

    @Test func aMicrophoneIsHeardWithoutAGap() async throws {
        let sound = SimulatedSound(.microphone)
        let expected = Mutex<UInt32?>(nil)
        let broken = Mutex(0)
        // Frames of 15 ms, so that eight transfers are a second: longer than a busy machine is away.
        let listen: @Sendable (Owner, USBResult) -> Void = { owner, result in
            guard result.status == .completed, result.byteCount == Self.perTransfer * 192 else { return }
            let start = Int(result.slot) * Owner.slotBytes
            let first = SimulatedSamples.first(in: owner.bytes(at: start, count: result.byteCount))
            let isNext = expected.withLock { expected in
                defer { expected = first.map { $0 &+ UInt32(Self.perTransfer * 48) } }
                return first != nil && (expected == nil || expected == first)
            }
            if !isNext { broken.withLock { $0 += 1 } }
            owner.device.submit(Self.transfer(owner, sound, slot: result.slot), slot: result.slot)
        }
        try await withOwner(of: sound, frame: .milliseconds(15), onResult: listen) { owner, _, _ async throws in
            #expect(try await owner.perform(.setInterface(1, alternate: 1)) == .completed)
            await owner.on { device in
                for slot in UInt32(1)..<8 { device.submit(Self.transfer(owner, sound, slot: slot), slot: slot) }
            }
            try await until { sound.counts.packets >= 200 }
            // The simulation's own count agrees with what was heard.
            #expect(sound.counts.gaps == 0 && broken.withLock { $0 } == 0)
        }
    }

    @Test func gapsAreCounted() async throws {
        let sound = SimulatedSound(.microphone)
        try await withOwner(of: sound) { owner, _, _ async throws in
            #expect(try await owner.perform(.setInterface(1, alternate: 1)) == .completed)
            let transfer = await owner.on { _ in Self.transfer(owner, sound, slot: 0) }
            #expect(try await owner.run(transfer).byteCount == Self.perTransfer * 192)
            try await Task.sleep(for: .milliseconds(30))
            #expect(try await owner.run(transfer).byteCount == Self.perTransfer * 192)
            #expect(sound.counts.packets == 16 && sound.counts.gaps == 1 && sound.counts.missedPackets >= 20)
        }
    }

    @Test func aLoudspeakerKnowsWhatItMissed() async throws {
        let sound = SimulatedSound(.loudspeaker)
        try await withOwner(of: sound, frame: .milliseconds(5)) { owner, _, _ async throws in
            #expect(try await owner.perform(.setInterface(1, alternate: 1)) == .completed)
            for slot in 0..<4 {
                for index in 0..<Self.perTransfer {
                    // The third transfer begins with samples that do not follow.
                    let frame = UInt64(slot * Self.perTransfer + index + (slot >= 2 ? 1 : 0))
                    owner.pages.write(SimulatedSamples.packet(frame), at: slot * Owner.slotBytes + index * 192)
                }
            }
            await owner.on { device in
                for slot in UInt32(0)..<4 { device.submit(Self.transfer(owner, sound, slot: slot), slot: slot) }
            }
            try await until { owner.results.count == 5 }
            #expect(owner.results[1...].allSatisfy { $0.byteCount == Self.perTransfer * 192 })
            #expect(sound.counts == SimulatedSoundCounts(packets: 32, brokenPackets: 1))
        }
    }

    @Test func packetsFailOneTransferAtATime() async throws {
        let sound = SimulatedSound(.microphone)
        try await withOwner(of: sound) { owner, _, faults async throws in
            #expect(try await owner.perform(.setInterface(1, alternate: 1)) == .completed)
            faults.add(.transactionError, endpoint: 0x81)
            let transfer = await owner.on { _ in Self.transfer(owner, sound, slot: 0) }
            let bad = try await owner.run(transfer)
            #expect(bad == USBResult(slot: 0, status: .completed, byteCount: 0))
            let packets = await owner.on { device in (0..<Self.perTransfer).map { device.packets[0, $0] } }
            #expect(packets.allSatisfy { $0.status == .transactionError && $0.actualByteCount == 0 })
            #expect(try await owner.run(transfer).byteCount == Self.perTransfer * 192)
            // A transfer that never ran has no results of the one before.
            await owner.on { device in
                device.submit(transfer, slot: 0)
                device.cancel(0)
            }
            try await until { owner.results.last?.status == .cancelled }
            let none = await owner.on { device in (0..<Self.perTransfer).map { device.packets[0, $0] } }
            #expect(none.allSatisfy { $0.status == .transactionError && $0.actualByteCount == 0 })
        }
    }

    @Test func smallPacketsAreFilledAsFarAsTheyGo() async throws {
        let sound = SimulatedSound(.microphone)
        try await withOwner(of: sound) { owner, _, _ async throws in
            #expect(try await owner.perform(.setInterface(1, alternate: 1)) == .completed)
            await owner.on { device in
                device.packets[0, 0].byteCount = 100
                device.packets[0, 1].byteCount = 400
                device.packets[0, 2].byteCount = 192
            }
            let transfer = USBTransfer(.isochronous, endpoint: 0x81, offset: 0, byteCount: 600, packetCount: 3)
            #expect(try await owner.run(transfer).byteCount == 100 + 192 + 100)
            // Packets lie where their lengths say, whatever came.
            let second = owner.bytes(at: 100, count: 192)
            #expect(SimulatedSamples.first(in: second) != nil)
            #expect(owner.bytes(at: 292, count: 208).allSatisfy { $0 == 0 })
        }
    }
}
