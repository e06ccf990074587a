// The simulated bus: what is plugged in, who has it, and who is told.

import HostIO
import HostUSB
import SharedRing
import Synchronization
import TestSupport
import Testing

@testable import SimulatedHost

@Suite struct SimulatedBusTests {
    @Test func devicesAreListedInOrder() throws {
        let bus = SimulatedUSB()
        try bus.plug(SimulatedKeyboard(), at: place("2-1"))
        try bus.plug(disk(speed: .super), at: place("1-1.2"))
        try bus.plug(SimulatedSound(.microphone), at: place("1-1.1"))
        let all = try bus.devices()
        #expect(
            all.map { "\($0)" } == [
                "1-1.1: ID 0d8c:0014 xenback Simulated microphone", "1-1.2: ID 0781:5581 xenback Simulated disk",
                "2-1: ID 046d:c31c xenback Simulated keyboard",
            ]
        )
        #expect(all.map(\.interfaceClasses) == [[1], [8], [3]])
        #expect(all.map(\.speed) == [.full, .super, .low])
        #expect(Set(all.map(\.deviceNumber)).count == 3)
        #expect(try USBDeviceRule("0781:5581/class=08/serial=4C530001").matches(all[1]))
        #expect(throws: HostFailure.self) { try bus.plug(SimulatedKeyboard(), at: place("2-1")) }
    }

    @Test func aDeviceHasOneOwner() async throws {
        try await withOwner(of: disk()) { owner, bus, _ async throws in
            let facts = try #require(bus.devices().first)
            #expect(bus.owner(at: facts.address) == "test")
            do throws(HostFailure) {
                _ = try bus.open(facts, owner: "other", on: owner.loop)
                Issue.record("opened twice")
            } catch {
                #expect(error.kind == .busy && error.text.contains("test"))
            }
            await owner.close()
            #expect(bus.owner(at: facts.address) == nil)
            let again = try Owner(bus.open(facts, owner: "other", on: owner.loop), owner.loop)
            // One that never began can be closed too.
            await again.close()
            #expect(bus.owner(at: facts.address) == nil)
        }
    }

    @Test func whatWasListedIsWhatIsOpened() throws {
        let loop = try EventLoop(name: "test")
        defer { loop.shutDown() }
        let bus = SimulatedUSB()
        try bus.plug(disk(), at: place("1-1"))
        let facts = try #require(bus.devices().first)
        bus.unplug(facts.address)
        bus.unplug(facts.address)
        func kind() -> HostFailure.Kind? {
            do throws(HostFailure) { _ = try bus.open(facts, owner: "test", on: loop) } catch { return error.kind }
            return nil
        }
        #expect(kind() == .notFound)
        try bus.plug(disk(), at: facts.address)
        #expect(kind() == .notFound)
        #expect(try bus.devices().first != facts)
    }

    @Test func hubsAreRefused() throws {
        final class Hub: SimulatedFunction {
            let strings = SimulatedStrings(product: "Hub")
            let speed = USBSpeed.high
            let descriptors = USBDescriptors(
                device: [18, 1, 0, 2, 9, 0, 1, 64, 0x6b, 0x1d, 2, 0, 0, 1, 1, 2, 0, 1],
                configurations: []
            )
        }
        let loop = try EventLoop(name: "test")
        defer { loop.shutDown() }
        let bus = SimulatedUSB()
        try bus.plug(Hub(), at: place("1-1"))
        let facts = try #require(bus.devices().first)
        #expect(facts.isHub)
        do throws(HostFailure) {
            _ = try bus.open(facts, owner: "test", on: loop)
            Issue.record("a hub was given away")
        } catch { #expect(error.kind == .denied) }
    }

    @Test func watchesHearOfChanges() async throws {
        let loop = try EventLoop(name: "test")
        defer { loop.shutDown() }
        let bus = SimulatedUSB()
        let calls = Mutex((first: 0, second: 0))
        let first = try bus.watch(on: loop) { calls.withLock { $0.first += 1 } }
        _ = try bus.watch(on: loop) { calls.withLock { $0.second += 1 } }
        try bus.plug(disk(), at: place("1-1"))
        try await until { calls.withLock { $0.first == 1 && $0.second == 1 } }
        // Many at once are told at least once, and not more often.
        await loop.on {
            for _ in 0..<50 {
                bus.unplug(USBBusAddress("1-1")!)
                try? bus.plug(SimulatedKeyboard(), at: USBBusAddress("1-1")!)
            }
        }
        try await until { calls.withLock { $0.first == 2 && $0.second == 2 } }
        await loop.on { first.end() }
        bus.unplug(try place("1-1"))
        try await until { calls.withLock { $0.second == 3 } }
        #expect(calls.withLock { $0.first } == 2)
    }
}
