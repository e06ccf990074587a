// The life of a disk: script, reconnection, removal, resize, media.

internal import BackendCore
internal import BlockBackend
internal import Hypervisor
internal import SharedRing
internal import SimulatedHypervisor
internal import SystemPackage
internal import TestSupport
internal import Testing
internal import XenWire

extension SimulatedDiskTests {
    @Suite
    struct LifecycleTests {
        let disk = ServedDisk.path

        /// What a person is told; empty if it worked.
        private func refusal(_ body: () async throws -> Void) async -> String {
            do { try await body() } catch { return "\(error)" }
            return ""
        }

        @Test func aScriptedDiskHoldsTwoUntilTheScriptHasRun() async throws {
            let bed = try GuestBed()
            let image = try bed.makeImage(sectors: 1024)
            try await bed.makeDevice(disk, image: image, script: "/etc/xen/scripts/block-xenback")
            let (backend, life) = bed.start(disk)
            let frontend = try TestFrontend(bed.guest, disk)
            #expect(try await frontend.backend(reaches: .initWait))
            #expect(try await frontend.backendKey("feature-max-indirect-segments") == "256")
            #expect(try await frontend.backendKey("max-ring-page-order") == "4")
            #expect(try await frontend.backendKey("multi-queue-max-queues") == "4")
            try await frontend.publish(frontend.keys())
            try await Task.sleep(for: .milliseconds(50))
            #expect(try await bed.read(disk.key("state")) == "2")
            try await backend.hotplug(.add)
            #expect(try await bed.read(disk.key("hotplug-status")) == "connected")
            #expect(try await bed.read(disk.key("physical-device-path")) == image.string)
            #expect(try await frontend.backend(reaches: .connected))
            #expect(try await frontend.read(512, at: 0) != nil)
            try await bed.write(disk.key("online"), "0")
            try await frontend.setState(.closing)
            try await frontend.setState(.closed)
            #expect(try await frontend.backend(reaches: .closed))
            try await backend.hotplug(.remove)
            await life.value
        }

        @Test func theScriptIsToldWhatIsWrong() async throws {
            let bed = try GuestBed()
            try await bed.makeDevice(disk, image: "/no/such.img", script: "/etc/xen/scripts/block-xenback")
            let (backend, life) = bed.start(disk)
            #expect(await refusal { try await backend.hotplug(.add) }.contains("/no/such.img"))
            // The same device again, repaired meanwhile.
            try await bed.host.store.remove(disk.relative)
            await life.value
        }

        @Test(arguments: [false, true])
        func theFrontendDriverIsReloaded(persistent: Bool) async throws {
            let bed = try GuestBed()
            try await bed.makeDevice(disk, image: try bed.makeImage(sectors: 1024))
            let (backend, life) = bed.start(disk)
            for round in 1...3 {
                let frontend = try TestFrontend(bed.guest, disk)
                try #require(try await frontend.connect(persistent: persistent), "\(bed.logs.all)")
                #expect(try await frontend.write([UInt8](repeating: UInt8(round), count: 512), at: 0) == .okay)
                try await frontend.setState(.closing)
                #expect(try await frontend.backend(reaches: .closing))
                // Nothing of the guest's is mapped any more once 5 or 6 is seen to be followed.
                try await frontend.setState(.closed)
                #expect(try await frontend.backend(reaches: .closed))
                #expect(bed.machine.usage(of: guestDomain)?.pagesMappedByOthers == 0)
                try await frontend.setState(.initialising)
            }
            await backend.drain()
            await life.value
        }

        @Test func aKexecedKernelBeginsAgainWithNewRings() async throws {
            let disk = try await ServedDisk()
            // The new kernel finds 4 and starts over.
            try await disk.frontend.setState(.initialising)
            #expect(try await disk.frontend.backend(reaches: .initWait), "\(disk.bed.logs.all)")
            let second = try disk.anotherFrontend()
            #expect(try await second.connect())
            #expect(try await second.read(512, at: 0) != nil)
            await disk.stop()
        }

        @Test func aResumedGuestConnectsAgainWithoutLeavingFour() async throws {
            let disk = try await ServedDisk()
            let logs = disk.bed.logs
            #expect(try await disk.frontend.write([UInt8](repeating: 9, count: 512), at: 3) == .okay)
            // The same domain, resumed: new rings and 3, without a goodbye (xen-blkfront.c, `blkfront_resume`).
            let second = try disk.anotherFrontend()
            try await second.publish(second.keys())
            #expect(await eventually { logs.count("connected:") == 2 }, "\(logs.all)")
            #expect(logs.count("state closing") == 0)
            #expect(try await second.backendKey("state") == "4")
            try await second.setState(.connected)
            #expect(try await second.read(512, at: 3) == [UInt8](repeating: 9, count: 512))
            await disk.stop()
        }

        @Test func closeWithRequestsInFlightAnswersThemFirst() async throws {
            let disk = try await ServedDisk(sectors: 4096)
            let frontend = disk.frontend
            var load = RandomLoad(frontend, sectors: 4096, seed: 9)
            for _ in 0..<30 { try load.issue() }
            load.push()
            try await load.collect(atLeast: 1)
            try await frontend.setState(.closing)
            #expect(try await frontend.backend(reaches: .closing))
            try await frontend.setState(.closed)
            #expect(try await frontend.backend(reaches: .closed))
            try load.collect()
            #expect(load.problems == [])
            await disk.stop()
        }

        @Test func aForeignSixEndsItAndIsNotOverwritten() async throws {
            let disk = try await ServedDisk()
            let (bed, state) = (disk.bed, ServedDisk.path.key("state"))
            try await bed.write(state, "6")
            await disk.ended()
            #expect(try await bed.read(state) == "6")
            #expect(bed.machine.usage(of: guestDomain)?.pagesMappedByOthers == 0)
        }

        @Test func aResizeIsToldInOneTransaction() async throws {
            let scene = try await Scene(sectors: 1024)
            let page = scene.frontend.segments(page: 0, bytes: 4096)
            #expect(try await scene.frontend.ask(.read, sector: 1024, segments: page) == .error)
            let file = try FileDescriptor.open(scene.image, .readWrite)
            try file.resize(to: 2048 * 512)
            try file.close()
            try await (scene.backend as? any LiveDisk)?.resize()
            #expect(try await scene.frontend.backendKey("sectors") == "2048")
            #expect(try await scene.frontend.backendKey("state") == "4")
            #expect(try await scene.frontend.ask(.read, sector: 1024, segments: page) == .okay)
            try await scene.end()
        }

        @Test func discsAreChangedUnderALiveDrive() async throws {
            let bed = try GuestBed()
            let (first, second) = (try bed.makeImage("1.iso", sectors: 64), try bed.makeImage("2.iso", sectors: 128))
            try await bed.makeDevice(disk, image: first, mode: "r", extra: ["device-type": "cdrom"])
            let (backend, life) = bed.start(disk)
            let frontend = try TestFrontend(bed.guest, disk)
            try #require(try await frontend.connect())
            #expect(try await frontend.backendKey("info") == "5")
            #expect(try await frontend.backendKey("sectors") == "64")
            let page = frontend.segments(page: 0, bytes: 4096)
            let drive = try #require(backend as? any LiveDisk)
            #expect(try await frontend.ask(.read, segments: page) == .okay)
            try await drive.ejectMedium()
            #expect(try await frontend.backendKey("sectors") == "0")
            #expect(try await frontend.ask(.read, segments: page) == .error)
            await #expect(throws: BackendFailure.self) {
                try await drive.insertMedium(bed.folder.string + "/none.iso")
            }
            try await drive.insertMedium(second.string)
            #expect(try await frontend.backendKey("sectors") == "128")
            #expect(try await frontend.ask(.read, sector: 120, segments: page) == .okay)
            #expect(try await frontend.ask(.write, sector: 0, segments: page) == .error)
            await backend.drain()
            await life.value
        }

        @Test func discardPunchesHoles() async throws {
            let scene = try await Scene(sectors: 2048)
            let frontend = scene.frontend
            #expect(try await frontend.backendKey("feature-discard") == "1")
            for index in 0..<32 {
                let data = [UInt8](repeating: 0xEE, count: 32768)
                #expect(try await frontend.write(data, at: UInt64(index * 64)) == .okay)
            }
            frontend.ring.put { frontend.abi.encodeDiscard(id: 4, sector: 512, sectorCount: 1024, into: $0) }
            frontend.ring.push()
            #expect(try await frontend.ring.responses(1).first?.status == .okay)
            let bytes = try scene.bed.bytes(of: scene.image)
            #expect(bytes[512 * 512..<1536 * 512].allSatisfy { $0 == 0 })
            #expect(bytes[..<(512 * 512)].allSatisfy { $0 == 0xEE })
            try await scene.end()
        }
    }
}
