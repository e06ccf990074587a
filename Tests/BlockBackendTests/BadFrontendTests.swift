// Frontends that break the ring, the keys or the states: this device is closed at the worst, and only this one.

internal import BackendCore
internal import BlockBackend
internal import FrontendDrivers
internal import Hypervisor
internal import SharedRing
internal import SimulatedHypervisor
internal import TestSupport
internal import Testing
internal import XenWire

extension SimulatedDiskTests {
    @Suite
    struct BadFrontendTests {
        @Test(arguments: [33, 1000, 0x7FFF_FFFF, 0x8000_0000, UInt32.max])
        func aProducerThatLies(ahead: UInt32) async throws {
            let scene = try await Scene()
            let ring = scene.frontend.ring
            // 5 honest requests first, so that −1 is backwards.
            for _ in 0..<5 { #expect(try await scene.frontend.ask(.flushDiskCache) == .okay) }
            ring.raw.grant.pages.storeRelease(5 &+ ahead, at: RingLayout.requestProducer)
            ring.raw.notify()
            #expect(try await scene.frontend.backend(reaches: .closing))
            #expect(try await scene.bed.read(Scene.victimPath.errorNode)?.contains("ring") ?? false)
            #expect(scene.bed.logs.contains("vbd3/7/51712: frontend fault"))
            try await scene.end(victimServes: false)
        }

        /// Copies that a broken turn left behind would be the next queue's of its loop.
        @Test(arguments: [false, true], [33, 0x8000_0000])
        func aBrokenTurnLeavesItsNeighbourNothing(persistent: Bool, ahead: UInt32) async throws {
            let scene = try await Scene(queues: 2, persistent: persistent)
            let frontend = scene.frontend
            // The second queue has the bystander's loop.
            let ring = frontend.rings[1]
            for index in 0..<5 {
                let segments = frontend.segments(page: index, bytes: 4096)
                ring.put { frontend.abi.encode(.write, id: 1, sector: 0, segments: segments, into: $0) }
            }
            ring.push()
            ring.raw.grant.pages.storeRelease(5 &+ ahead, at: RingLayout.requestProducer)
            ring.raw.notify()
            for round: UInt8 in 1...20 {
                let bytes = [UInt8](repeating: round, count: 4096)
                #expect(try await scene.bystander.write(bytes, at: 0) == .okay)
                #expect(try await scene.bystander.ask(.flushDiskCache) == .okay)
                #expect(try await scene.bystander.read(4096, at: 0, page: 8) == bytes)
            }
            #expect(try await frontend.backend(reaches: .closing))
            try await scene.end(victimServes: false)
        }

        @Test func afterALieTheFrontendMayBeginAgain() async throws {
            let scene = try await Scene()
            let ring = scene.frontend.ring
            ring.raw.grant.pages.storeRelease(5000, at: RingLayout.requestProducer)
            ring.raw.notify()
            #expect(try await scene.frontend.backend(reaches: .closing))
            try await scene.frontend.setState(.closed)
            #expect(try await scene.frontend.backend(reaches: .closed))
            try await scene.frontend.setState(.initialising)
            let fresh = try TestFrontend(scene.bed.guest, Scene.victimPath)
            #expect(try await fresh.connect())
            #expect(try await fresh.write([UInt8](repeating: 3, count: 512), at: 0) == .okay)
            try await scene.end(victimServes: false)
        }

        @Test(arguments: [
            ("ring-ref", "-1"), ("ring-ref", "x"), ("ring-ref", "4294967296"), ("ring-ref", "4294967295"),
            ("event-channel", "0"), ("event-channel", "huge"), ("event-channel", "99999"),
            ("multi-queue-num-queues", "0"), ("multi-queue-num-queues", "5"), ("multi-queue-num-queues", "2"),
            ("ring-page-order", "9"), ("ring-page-order", "1"), ("protocol", "alpha-abi"),
        ])
        func keysThatMakeNoSense(key: String, value: String) async throws {
            let scene = try await Scene(connects: false)
            try #require(try await scene.frontend.backend(reaches: .initWait))
            var keys = scene.frontend.keys()
            keys[key] = value
            try await scene.frontend.publish(keys)
            #expect(try await scene.frontend.backend(reaches: .closing))
            #expect(try await scene.bed.read(Scene.victimPath.errorNode) != nil)
            #expect(scene.bed.machine.usage(of: guestDomain)?.pagesMappedByOthers == 1, "only the bystander's ring")
            try await scene.end(victimServes: false)
        }

        @Test func aRingGrantedForReadingOnly() async throws {
            let scene = try await Scene(connects: false)
            try #require(try await scene.frontend.backend(reaches: .initWait))
            let grant = try scene.bed.guest.sharing.share(pageCount: 1, with: .initial, access: .readOnly)
            var keys = scene.frontend.keys()
            keys["ring-ref"] = "\(grant.references[0].rawValue)"
            try await scene.frontend.publish(keys)
            #expect(try await scene.frontend.backend(reaches: .closing))
            try await scene.end(victimServes: false)
        }

        @Test func aFrontendThatJumpsAndFlipsStates() async throws {
            let scene = try await Scene(connects: false)
            var generator = SeededGenerator(state: 11)
            try await scene.frontend.publish(scene.frontend.keys())
            for _ in 0..<1500 {
                let text = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "x", ""].randomElement(using: &generator)!
                try await scene.bed.guest.store.write("\(Scene.victimPath.frontend)/state", text)
            }
            // The device still obeys, from whatever it was.
            try await scene.frontend.setState(.closing)
            try await scene.frontend.setState(.closed)
            #expect(try await scene.frontend.backend(reaches: .closed), "\(scene.bed.logs.all)")
            try await scene.frontend.setState(.initialising)
            let fresh = try TestFrontend(scene.bed.guest, Scene.victimPath)
            #expect(try await fresh.connect())
            #expect(scene.bed.machine.usage(of: guestDomain)?.pagesMappedByOthers == 2)
            try await scene.end(victimServes: false)
        }

        @Test func theGuestDiesWithRequestsInFlight() async throws {
            let scene = try await Scene()
            let frontend = scene.frontend
            for index in 0..<20 {
                let segments = frontend.segments(page: index, bytes: 4096)
                frontend.ring.put { frontend.abi.encode(.write, id: 1, sector: 0, segments: segments, into: $0) }
            }
            frontend.ring.push()
            try scene.bed.machine.destroyDomain(guestDomain)
            try await scene.bed.host.store.remove("/local/domain/7")
            #expect(try await scene.bed.waitFor(Scene.victimPath, state: .closed))
            #expect(try await scene.bed.waitFor(Scene.bystanderPath, state: .closed))
            await scene.backend.drain()
        }

        @Test func xenStoreOutOfReachForTenSeconds() async throws {
            let scene = try await Scene()
            scene.bed.machine.silenceStore(for: .seconds(10))
            let end = ContinuousClock.now + .seconds(9)
            var served = 0
            while ContinuousClock.now < end {
                #expect(try await scene.frontend.write([UInt8](repeating: 9, count: 512), at: 3) == .okay)
                served += 1
                try await Task.sleep(for: .milliseconds(50))
            }
            #expect(served > 1)
            try await scene.frontend.setState(.closing)
            #expect(try await scene.frontend.backend(reaches: .closing, within: .seconds(20)))
            try await scene.end(victimServes: false)
        }
    }
}
