// What the host does late is waited for, in a phase that people can see; commands wait for their turn.

internal import BackendCore
internal import BlockBackend
internal import Glibc
internal import HostIO
internal import Hypervisor
internal import SimulatedHypervisor
internal import SystemPackage
internal import TestSupport
internal import Testing
internal import XenWire

extension SimulatedDiskTests {
    @Suite
    struct HostWaitTests {
        private let state = ServedDisk.path.key("state")

        private func phase(_ disk: ServedDisk, contains text: String) async -> Bool {
            await eventually { await disk.backend.report().phase.contains(text) }
        }

        /// The last write of a dead worker is stuck in the host's storage, and holds the image's locks.
        @Test func aTakeoverWaitsForTheLockAndSaysSo() async throws {
            let disk = try await ServedDisk()
            #expect(try await disk.frontend.write([UInt8](repeating: 7, count: 512), at: 1) == .okay)
            try await disk.die()
            let stuck = try FileDescriptor.open(disk.image, .readWrite)
            var lock = flock(l_type: Int16(F_WRLCK), l_whence: Int16(SEEK_SET), l_start: 0, l_len: 0, l_pid: 0)
            // F_OFD_SETLK. The storage of requests in flight belongs to the queue that died; it may still be on its way out.
            #expect(await eventually { unsafe fcntl(stuck.rawValue, 37, &lock) == 0 })
            try disk.succeed()
            #expect(await phase(disk, contains: "waiting for the image"), "\(disk.bed.logs.all)")
            #expect(await eventually { disk.bed.logs.contains("still waiting for the image") }, "\(disk.bed.logs.all)")
            #expect(try await disk.bed.read(state) == "4")
            try stuck.close()
            #expect(try await disk.frontend.read(512, at: 1) == [UInt8](repeating: 7, count: 512))
            #expect(disk.bed.logs.count("still waiting") == 1)
            await disk.stop()
        }

        /// The image's storage is away, and comes back.
        @Test func aTakeoverWaitsForTheImage() async throws {
            let disk = try await ServedDisk()
            try await disk.die()
            let away = disk.bed.folder.appending("away.img")
            try #require(unsafe rename(disk.image.string, away.string) == 0)
            try disk.succeed()
            #expect(await phase(disk, contains: "waiting for the image"), "\(disk.bed.logs.all)")
            #expect(try await disk.bed.read(state) == "4")
            try #require(unsafe rename(away.string, disk.image.string) == 0)
            #expect(try await disk.frontend.read(512, at: 0) != nil)
            #expect(try await disk.bed.read(state) == "4")
            await disk.stop()
        }

        /// There is no room for the journal of a new connection.
        @Test func aFirstConnectWaitsForRoom() async throws {
            let disk = try await ServedDisk(connects: false)
            let frontend = disk.frontend
            #expect(try await frontend.backend(reaches: .initWait))
            let small = try SmallFileSystem(kilobytes: 256)
            let folder = disk.journal.removingLastComponent()
            try Files.makeDirectory(folder, permissions: .ownerReadWriteExecute)
            try small.cover(folder)
            try small.fill()
            try await frontend.publish(frontend.keys())
            #expect(await phase(disk, contains: "waiting for the rings"), "\(disk.bed.logs.all)")
            #expect(await eventually { disk.bed.logs.contains("make room in the run directory's file system") })
            #expect(try await disk.bed.read(state) == "2")
            try small.makeRoom()
            #expect(try await frontend.backend(reaches: .connected))
            try await frontend.setState(.connected)
            #expect(try await frontend.write([UInt8](repeating: 3, count: 512), at: 1) == .okay)
            await disk.stop()
        }

        /// A wait ends with whoever needs it.
        @Test(arguments: [false, true])
        func aWaitEndsWithItsDevice(isStopped: Bool) async throws {
            let disk = try await ServedDisk()
            try await disk.die()
            try #require(unsafe unlink(disk.image.string) == 0)
            try disk.succeed()
            #expect(await phase(disk, contains: "waiting for the image"))
            if isStopped {
                await disk.backend.drain()
                #expect(try await disk.bed.read(state) == "4")
            } else {
                try await disk.bed.host.store.remove(ServedDisk.path.relative)
            }
            await disk.ended()
        }

        /// XenStore fails the publication of state 4, which is tried again; a resize in between must not be overwritten
        /// with the size from before it.
        @Test func aResizeBesideAConnect() async throws {
            let disk = try await ServedDisk(sectors: 1024, connects: false)
            let frontend = disk.frontend
            #expect(try await frontend.backend(reaches: .initWait))
            let fault = FaultPlan.Rule(.storeTransactionEnd, by: .initial, count: 6, .fail(.ioError))
            try disk.bed.host.inject(FaultPlan([fault]))
            try await frontend.publish(frontend.keys())
            #expect(await eventually { disk.bed.logs.contains("cannot publish state connected") })
            let file = try FileDescriptor.open(disk.image, .readWrite)
            try file.resize(to: 4096 * 512)
            try file.close()
            try await (disk.backend as? any LiveDisk)?.resize()
            #expect(try await frontend.backend(reaches: .connected))
            #expect(try await frontend.backendKey("sectors") == "4096")
            try await frontend.setState(.connected)
            let page = frontend.segments(page: 0, bytes: 4096)
            #expect(try await frontend.ask(.read, sector: 4088, segments: page) == .okay)
            await disk.stop()
        }
    }
}
