// Transfers of simulated devices: data, errors, cancellation, and the end of a device.

import HostIO
import HostUSB
import SharedRing
import TestSupport
import Testing

@testable import SimulatedHost

/// A command wrapper of the flash disk.
func wrapper(_ command: [UInt8], bytes: Int, isIn: Bool, tag: UInt8 = 7) -> [UInt8] {
    let length = [0, 8, 16, 24].map { UInt8(truncatingIfNeeded: bytes >> $0) }
    let padded = command + [UInt8](repeating: 0, count: 16 - command.count)
    return [0x55, 0x53, 0x42, 0x43, tag, 0, 0, 0] + length + [isIn ? 0x80 : 0, 0, UInt8(command.count)] + padded
}

extension Owner {
    /// A whole command: wrapper, data, status; the three transfers are submitted together.
    func command(_ command: [UInt8], bytes: Int, isIn: Bool) async throws -> (data: USBResult, status: [UInt8]) {
        let before = results.count
        pages.write(wrapper(command, bytes: bytes, isIn: isIn), at: 0)
        let second = Owner.slotBytes
        await submit([
            (0, USBTransfer(.bulk, endpoint: 2, offset: 0, byteCount: 31)),
            (1, USBTransfer(.bulk, endpoint: isIn ? 0x81 : 2, offset: second, byteCount: bytes)),
            (2, USBTransfer(.bulk, endpoint: 0x81, offset: 2 * second, byteCount: 13)),
        ])
        try await until { self.results.count >= before + 3 }
        let run = results[before...]
        #expect(run.map(\.slot) == [0, 1, 2])
        return (run[before + 1], statusBytes(at: 2 * second))
    }

    private func statusBytes(at offset: Int) -> [UInt8] { bytes(at: offset, count: 13) }
}

@Suite struct SimulatedTransferTests {
    @Test func aDiskKeepsWhatIsWritten() async throws {
        try await withOwner(of: disk()) { owner, _, _ async throws in
            let content = (0..<4096).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 >> 8) }
            owner.pages.write(content, at: Owner.slotBytes)
            let written = try await owner.command([0x2a, 0, 0, 0, 0, 16, 0, 0, 8, 0], bytes: 4096, isIn: false)
            #expect(written.data.status == .completed && written.data.byteCount == 4096)
            #expect(written.status == [0x55, 0x53, 0x42, 0x53, 7, 0, 0, 0, 0, 0, 0, 0, 0])
            owner.pages.zero(at: Owner.slotBytes, count: 4096)
            let read = try await owner.command([0x28, 0, 0, 0, 0, 16, 0, 0, 8, 0], bytes: 4096, isIn: true)
            #expect(read.data.byteCount == 4096 && read.status[8...] == [0, 0, 0, 0, 0])
            #expect(owner.bytes(at: Owner.slotBytes, count: 4096) == content)
        }
    }

    @Test func aDiskAnswersWhatDriversAsk() async throws {
        try await withOwner(of: disk(blocks: 256)) { owner, _, _ async throws in
            #expect(try await owner.control(USBSetup(requestType: 0xa1, request: 0xfe, length: 1)).data == [0])
            let capacity = try await owner.command([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], bytes: 8, isIn: true)
            #expect(capacity.data.byteCount == 8)
            #expect(owner.bytes(at: Owner.slotBytes, count: 8) == [0, 0, 0, 255, 0, 0, 2, 0])
            let inquiry = try await owner.command([0x12, 0, 0, 0, 255, 0], bytes: 255, isIn: true)
            #expect(inquiry.data.byteCount == 36 && inquiry.status[8] == 255 - 36 && inquiry.status[12] == 0)
            // Beyond the end: a halt in place of data, a failure, and sense data that says why.
            owner.pages.write(wrapper([0x28, 0, 0, 0, 0, 255, 0, 0, 2, 0], bytes: 1024, isIn: true), at: 0)
            #expect(try await owner.run(USBTransfer(.bulk, endpoint: 2, offset: 0, byteCount: 31)).status == .completed)
            let data = USBTransfer(.bulk, endpoint: 0x81, offset: 0, byteCount: 1024)
            #expect(try await owner.run(data).status == .stall)
            #expect(try await owner.perform(.clearHalt(endpoint: 0x81)) == .completed)
            let status = USBTransfer(.bulk, endpoint: 0x81, offset: 0, byteCount: 13)
            #expect(try await owner.run(status).byteCount == 13)
            let bytes = owner.bytes(at: 0, count: 13)
            #expect(bytes[12] == 1 && bytes[9] == 4)
            let sense = try await owner.command([3, 0, 0, 0, 18, 0], bytes: 18, isIn: true)
            #expect(sense.data.byteCount == 18 && owner.bytes(at: Owner.slotBytes, count: 13).last == 0x21)
        }
    }

    /// What does not fit into what was asked for is too much, unless it begins a packet.
    @Test func aPacketThatIsCutOverflows() async throws {
        try await withOwner(of: disk()) { owner, _, _ async throws in
            let out = USBTransfer(.bulk, endpoint: 2, offset: 0, byteCount: 31)
            owner.pages.write(wrapper([0x28, 0, 0, 0, 0, 16, 0, 0, 8, 0], bytes: 4096, isIn: true), at: 0)
            #expect(try await owner.run(out).status == .completed)
            let whole = USBTransfer(.bulk, endpoint: 0x81, offset: 0, byteCount: 512)
            #expect(try await owner.run(whole).status == .completed)
            let cut = try await owner.run(USBTransfer(.bulk, endpoint: 0x81, offset: 0, byteCount: 700))
            #expect(cut.status == .overflow && cut.byteCount == 700)
        }
    }

    @Test func aDiskWantsARecoveryAfterNonsense() async throws {
        try await withOwner(of: disk()) { owner, _, _ async throws in
            owner.pages.zero(at: 0, count: 64)
            let out = USBTransfer(.bulk, endpoint: 2, offset: 0, byteCount: 31)
            #expect(try await owner.run(out).status == .stall)
            #expect(try await owner.perform(.clearHalt(endpoint: 2)) == .completed)
            #expect(try await owner.run(out).status == .stall)
            #expect(try await owner.control(USBSetup(requestType: 0x21, request: 0xff)).status == .completed)
            #expect(try await owner.perform(.clearHalt(endpoint: 2)) == .completed)
            let ready = try await owner.command([0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0], bytes: 8, isIn: true)
            #expect(ready.status[12] == 0)
        }
    }

    @Test func standardRequestsAreAnswered() async throws {
        try await withOwner(of: disk(speed: .super)) { owner, _, _ async throws in
            func get(_ value: UInt16, _ length: UInt16) async throws -> [UInt8] {
                try await owner.control(
                    USBSetup(requestType: 0x80, request: 6, value: value, length: length)
                ).data
            }
            #expect(try await get(0x0100, 18) == owner.device.descriptors.device)
            #expect(try await get(0x0200, 9) == Array(owner.device.descriptors.configurations[0][..<9]))
            let configuration = try await get(0x0200, 255)
            #expect(configuration == owner.device.descriptors.configurations[0] && configuration.count == 44)
            #expect(configuration[18 + 7..<18 + 9] == [6, 0x30])
            #expect(try await get(0x0300, 255) == [4, 3, 9, 4])
            #expect(try await get(0x0303, 255) == SimulatedDescriptors.string("4C530001"))
            #expect(try await owner.control(USBSetup(requestType: 0x80, request: 8, length: 1)).data == [1])
            let unknown = USBSetup(requestType: 0x80, request: 6, value: 0x0f00, length: 5)
            #expect(try await owner.control(unknown).status == .stall)
            // A refused request does not halt endpoint 0.
            #expect(try await get(0x0100, 8).count == 8)
        }
    }

    @Test(arguments: [
        USBSetup(requestType: 0, request: 5, value: 4), USBSetup(requestType: 0, request: 9, value: 1),
        USBSetup(requestType: 1, request: 11), USBSetup(requestType: 2, request: 1, index: 0x81),
    ])
    func theHostsOwnRequestsAreRefused(_ setup: USBSetup) async throws {
        try await withOwner(of: disk()) { owner, _, _ async throws in
            #expect(try await owner.control(setup).status == .refused)
        }
    }

    @Test func impossibleTransfersAreRefused() async throws {
        try await withOwner(of: SimulatedSound(.microphone)) { owner, _, _ async throws in
            func status(_ kind: USBTransfer.Kind, _ endpoint: UInt8, _ bytes: Int) async throws -> USBStatus {
                try await owner.run(USBTransfer(kind, endpoint: endpoint, offset: 0, byteCount: bytes)).status
            }
            // The endpoint is in alternate setting 1.
            #expect(try await status(.isochronous, 0x81, 192) == .refused)
            #expect(try await owner.perform(.setInterface(1, alternate: 2)) == .stall)
            #expect(try await owner.perform(.setInterface(1, alternate: 1)) == .completed)
            #expect(try await status(.isochronous, 0x81, 192) == .refused)
            #expect(try await status(.bulk, 0x81, 192) == .refused)
            #expect(try await status(.interrupt, 0x01, 8) == .refused)
            #expect(try await status(.bulk, 0xf1, 8) == .refused)
            #expect(try await status(.bulk, 0, 8) == .refused)
            #expect(try await status(.control, 1, 8) == .refused)
            #expect(try await status(.control, 0, 7) == .refused)
            let long = USBSetup(requestType: 0x80, request: 6, value: 0x0100, length: 64)
            owner.pages.write(long.bytes, at: 0)
            #expect(try await status(.control, 0, 8 + 63) == .refused)
            #expect(try await owner.perform(.setConfiguration(2)) == .stall)
            #expect(try await owner.perform(.clearHalt(endpoint: 0x02)) == .refused)
        }
    }

    @Test func keysArriveInOrder() async throws {
        let keyboard = SimulatedKeyboard()
        try await withOwner(of: keyboard) { owner, _, _ async throws in
            let input = { (slot: UInt32) in
                USBTransfer(.interrupt, endpoint: 0x81, offset: Int(slot) * 8, byteCount: 8)
            }
            await owner.submit((0..<4).map { ($0, input($0)) })
            try await Task.sleep(for: .milliseconds(20))
            #expect(owner.results.isEmpty)
            keyboard.press(0x04)
            keyboard.press(0x05, modifiers: 2)
            try await until { owner.results.count == 4 }
            #expect(owner.results.map(\.slot) == [0, 1, 2, 3])
            #expect(owner.results.allSatisfy { $0.status == .completed && $0.byteCount == 8 })
            let reports = owner.bytes(at: 0, count: 32)
            #expect(reports == [0, 0, 4] + zeroes(5) + zeroes(8) + [2, 0, 5] + zeroes(5) + zeroes(8))
            let lights = USBSetup(requestType: 0x21, request: 9, value: 0x0200, length: 1)
            #expect(try await owner.control(lights, [3]).status == .completed)
            #expect(keyboard.lights == 3)
            let report = USBSetup(requestType: 0x81, request: 6, value: 0x2200, length: 255)
            #expect(try await owner.control(report).data.count == 63)
        }
    }

    @Test func shortAnswersCanBeRefused() async throws {
        let keyboard = SimulatedKeyboard()
        try await withOwner(of: keyboard) { owner, _, _ async throws in
            keyboard.press(4)
            var transfer = USBTransfer(.interrupt, endpoint: 0x81, offset: 0, byteCount: 64)
            #expect(try await owner.run(transfer) == USBResult(slot: 0, status: .completed, byteCount: 8))
            transfer.refusesShort = true
            #expect(try await owner.run(transfer) == USBResult(slot: 0, status: .short, byteCount: 8))
        }
    }

    private func zeroes(_ count: Int) -> [UInt8] { [UInt8](repeating: 0, count: count) }
}
