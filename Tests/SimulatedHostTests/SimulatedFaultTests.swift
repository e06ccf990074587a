// Devices that break: each fault ends its transfer once, and the device can be used afterwards or is gone.

import HostIO
import HostUSB
import SharedRing
import Synchronization
import TestSupport
import Testing

@testable import SimulatedHost

@Suite struct SimulatedFaultTests {
    private let read = USBTransfer(.interrupt, endpoint: 0x81, offset: 0, byteCount: 8)

    @Test(arguments: [
        (SimulatedFault.babble, USBStatus.overflow, 0), (.excess, .overflow, 8),
        (.transactionError, .transactionError, 0), (.delay(.milliseconds(30)), .completed, 8),
    ])
    func oneTransferGoesWrong(_ fault: SimulatedFault, _ status: USBStatus, _ count: Int) async throws {
        let keyboard = SimulatedKeyboard()
        try await withOwner(of: keyboard) { owner, _, faults async throws in
            faults.add(fault, endpoint: 0x81, after: 1)
            for _ in 0..<3 { keyboard.press(4) }
            #expect(try await owner.run(read).status == .completed)
            #expect(try await owner.run(read) == USBResult(slot: 0, status: status, byteCount: count))
            #expect(try await owner.run(read).status == .completed)
        }
    }

    @Test func aStalledEndpointStaysHalted() async throws {
        let keyboard = SimulatedKeyboard()
        try await withOwner(of: keyboard) { owner, _, faults async throws in
            faults.add(.stall, endpoint: 0x81)
            for _ in 0..<3 { keyboard.press(4) }
            #expect(try await owner.run(read).status == .stall)
            #expect(try await owner.run(read).status == .stall)
            let status = USBSetup(requestType: 0x82, request: 0, index: 0x81, length: 2)
            #expect(try await owner.control(status).data == [1, 0])
            #expect(try await owner.perform(.clearHalt(endpoint: 0x81)) == .completed)
            #expect(try await owner.run(read).status == .completed)
        }
    }

    @Test func silenceEndsWithACancellation() async throws {
        let keyboard = SimulatedKeyboard()
        try await withOwner(of: keyboard) { owner, _, faults async throws in
            faults.add(.silence, endpoint: 0x81)
            keyboard.press(4)
            await owner.submit([(3, read), (4, read)])
            try await Task.sleep(for: .milliseconds(20))
            #expect(owner.results.isEmpty)
            await owner.on { $0.cancel(3) }
            try await until { owner.results.count == 2 }
            #expect(owner.results.map(\.slot) == [3, 4])
            #expect(owner.results.map(\.status) == [.cancelled, .completed])
            // Of slots that are not in use nothing is heard.
            await owner.on { device in for slot in UInt32(0)..<8 { device.cancel(slot) } }
            #expect(try await owner.perform(.reset) == .completed)
            #expect(owner.results.count == 3)
        }
    }

    @Test func cancellingInTheMiddleKeepsTheOrder() async throws {
        let keyboard = SimulatedKeyboard()
        try await withOwner(of: keyboard) { owner, _, _ async throws in
            await owner.submit((0..<5).map { ($0, read) })
            await owner.on { device in for slot: UInt32 in [2, 4, 0, 2] { device.cancel(slot) } }
            try await until { owner.results.count == 3 }
            #expect(owner.results.map(\.slot) == [2, 4, 0])
            keyboard.press(4)
            try await until { owner.results.count == 5 }
            #expect(owner.results[3...].map(\.slot) == [1, 3])
        }
    }

    @Test(arguments: [true, false])
    func aDeviceVanishesOnce(_ byItself: Bool) async throws {
        try await withOwner(of: disk()) { owner, bus, faults async throws in
            let input = USBTransfer(.bulk, endpoint: 0x81, offset: 0, byteCount: 512)
            await owner.submit((0..<7).map { ($0, input) })
            if byItself {
                faults.add(.vanish, endpoint: 0)
                let setup = USBSetup(requestType: 0x80, request: 6, value: 0x0100, length: 18)
                owner.pages.write(setup.bytes, at: 4096)
                await owner.submit([(7, USBTransfer(.control, endpoint: 0, offset: 4096, byteCount: 26))])
            } else {
                bus.unplug(owner.device.facts.address)
            }
            try await until { owner.state.withLock { $0.vanished } == 1 }
            #expect(owner.results.count == (byItself ? 8 : 7))
            #expect(owner.results.allSatisfy { $0.status == .noDevice })
            #expect(Set(owner.results.map(\.slot)).count == owner.results.count)
            #expect(try bus.devices().isEmpty)
        }
    }

    @Test func whatIsSubmittedToAGoneDeviceComesBack() async throws {
        let ended = Mutex(0)
        // Submits again from within the delivery, a few times.
        let again: @Sendable (Owner, USBResult) -> Void = { owner, result in
            let count = ended.withLock { count in
                count += 1
                return count
            }
            if count == 20 { return }
            let transfer = USBTransfer(.bulk, endpoint: 0x81, offset: 0, byteCount: 512)
            owner.device.submit(transfer, slot: result.slot)
        }
        try await withOwner(of: disk(), onResult: again) { owner, bus, _ async throws in
            await owner.submit([(1, USBTransfer(.bulk, endpoint: 0x81, offset: 0, byteCount: 512))])
            bus.unplug(owner.device.facts.address)
            try await until { ended.withLock { $0 } == 20 }
            #expect(owner.results.allSatisfy { $0.status == .noDevice && $0.slot == 1 })
        }
    }

    @Test func closingCancelsEverythingFirst() async throws {
        try await withOwner(of: disk()) { owner, bus, faults async throws in
            faults.add(.delay(.seconds(3600)), endpoint: 2)
            await owner.submit([
                (0, USBTransfer(.bulk, endpoint: 2, offset: 0, byteCount: 31)),
                (1, USBTransfer(.bulk, endpoint: 0x81, offset: 0, byteCount: 512)),
            ])
            async let first: Void = owner.close()
            async let second: Void = owner.close()
            _ = await (first, second)
            #expect(owner.results.map(\.status) == [.cancelled, .cancelled])
            #expect(bus.owner(at: owner.device.facts.address) == nil)
        }
    }

    @Test func aDeviceThatWasOpenedAndPulledSaysSo() async throws {
        let loop = try EventLoop(name: "test")
        defer { loop.shutDown() }
        let bus = SimulatedUSB()
        try bus.plug(disk(), at: place("1-1"))
        let owner = try Owner(bus.open(#require(bus.devices().first), owner: "test", on: loop), loop)
        bus.unplug(try place("1-1"))
        try await owner.begin()
        try await until { owner.state.withLock { $0.vanished } == 1 }
        await owner.close()
    }

    @Test func newConfigurationsCancelWhatWaits() async throws {
        let keyboard = SimulatedKeyboard()
        try await withOwner(of: keyboard) { owner, _, _ async throws in
            await owner.submit([(5, read)])
            await owner.on { $0.perform(.setConfiguration(0), slot: 0) }
            try await until { owner.results.count == 2 }
            #expect(owner.results.contains(USBResult(slot: 5, status: .cancelled, byteCount: 0)))
            #expect(await owner.on { $0.activeConfiguration } == nil)
            #expect(try await owner.run(read).status == .refused)
            #expect(try await owner.perform(.setConfiguration(1)) == .completed)
            #expect(await owner.on { $0.activeConfiguration } == 1)
            keyboard.press(4)
            #expect(try await owner.run(read).status == .completed)
        }
    }
}
