// An owner of a device that remembers what it was told, and ways to wait for it.

import Glibc
import HostIO
import HostUSB
import SharedRing
import Synchronization
import TestSupport
import Testing

@testable import SimulatedHost

/// The owner of a device in a test: eight slots of 64 KiB each.
final class Owner: USBDeviceClient {
    static let slotBytes = 1 << 16
    struct State {
        var results: [USBResult] = []
        var deliveries = 0
        var vanished = 0
        var wasOffLoop = false
        var wasWithinCall = false
        var resultsAfterVanished = 0
    }
    let loop: EventLoop
    let device: any OpenUSBDevice
    let pages: PrivatePages
    let state = Mutex(State())
    let isWithinCall = Mutex(false)
    let onResult: @Sendable (Owner, USBResult) -> Void

    init(
        _ device: any OpenUSBDevice,
        _ loop: EventLoop,
        onResult: @escaping @Sendable (Owner, USBResult) -> Void = { _, _ in }
    ) throws {
        self.device = device
        self.loop = loop
        self.onResult = onResult
        pages = try PrivatePages(byteCount: 8 * Owner.slotBytes)
    }

    func completed(_ results: borrowing USBResultBatch, of device: any OpenUSBDevice) {
        let run = (0..<results.count).map { results[$0] }
        let isOnLoop = loop.isOnLoop
        let isWithin = isWithinCall.withLock { $0 }
        state.withLock { state in
            state.results += run
            state.deliveries += 1
            if state.vanished > 0 { state.resultsAfterVanished += run.count }
            if !isOnLoop { state.wasOffLoop = true }
            if isWithin { state.wasWithinCall = true }
        }
        for result in run { onResult(self, result) }
    }

    func vanished(_ device: any OpenUSBDevice) { state.withLock { $0.vanished += 1 } }

    var results: [USBResult] { state.withLock { $0.results } }

    /// Runs `body` on the loop; nothing may be delivered from within.
    func on<Value: Sendable>(_ body: @escaping @Sendable (any OpenUSBDevice) -> Value) async -> Value {
        await loop.on {
            self.isWithinCall.withLock { $0 = true }
            defer { self.isWithinCall.withLock { $0 = false } }
            return body(self.device)
        }
    }

    func begin(packets: Int = 64) async throws {
        let plan = USBTransferPlan(slots: 8, packets: packets, pages: pages)
        let failure = await on { device -> HostFailure? in
            do throws(HostFailure) {
                try device.begin(plan, client: self)
                return nil
            } catch { return error }
        }
        if let failure { throw failure }
    }

    /// Submits transfers of slots that are free, all in one turn, and returns without waiting.
    func submit(_ transfers: [(slot: UInt32, transfer: USBTransfer)]) async {
        await on { device in for (slot, transfer) in transfers { device.submit(transfer, slot: slot) } }
    }

    /// One transfer in slot 0, waited for.
    func run(_ transfer: USBTransfer) async throws -> USBResult {
        let before = results.count
        await submit([(0, transfer)])
        try await until { self.results.count > before }
        return results[before]
    }

    func perform(_ operation: USBOperation) async throws -> USBStatus {
        let before = results.count
        await on { $0.perform(operation, slot: 0) }
        try await until { self.results.count > before }
        return results[before].status
    }

    /// A control transfer in slot 0 and the data that came.
    func control(_ setup: USBSetup, _ data: [UInt8] = []) async throws -> (status: USBStatus, data: [UInt8]) {
        pages.write(setup.bytes + data, at: 0)
        let transfer = USBTransfer(.control, endpoint: 0, offset: 0, byteCount: 8 + Int(setup.length))
        let result = try await run(transfer)
        return (result.status, setup.isToHost ? bytes(at: 8, count: result.byteCount) : [])
    }

    func bytes(at offset: Int, count: Int) -> [UInt8] {
        pages.withBytes(at: offset, count: count) { span in unsafe span.withUnsafeBytes { unsafe Array($0) } }
    }

    func close() async {
        await withCheckedContinuation { continuation in
            loop.perform { self.device.close { continuation.resume() } }
        }
    }
}

/// Runs a test with a bus, a loop and the owner of a device at 1-1; in the end the device is closed.
func withOwner(
    of function: any SimulatedFunction,
    frame: Duration = .milliseconds(1),
    onResult: @escaping @Sendable (Owner, USBResult) -> Void = { _, _ in },
    _ body: (Owner, SimulatedUSB, SimulatedFaults) async throws -> Void
) async throws {
    let loop = try EventLoop(name: "test")
    defer { loop.shutDown() }
    let bus = SimulatedUSB(frame: frame)
    let address = try place("1-1")
    try bus.plug(function, at: address)
    let facts = try #require(bus.devices().first)
    let owner = try Owner(bus.open(facts, owner: "test", on: loop), loop, onResult: onResult)
    try await owner.begin()
    do {
        try await body(owner, bus, #require(bus.faults(at: address)))
    } catch {
        await owner.close()
        throw error
    }
    await owner.close()
    owner.state.withLock { state in
        #expect(!state.wasOffLoop && !state.wasWithinCall && state.resultsAfterVanished == 0)
    }
}

func place(_ text: String) throws -> USBBusAddress { try #require(USBBusAddress(text)) }

func disk(blocks: Int = 256, speed: USBSpeed = .high) throws -> SimulatedDisk {
    SimulatedDisk(try PrivatePages(byteCount: blocks * 512), speed: speed)
}
