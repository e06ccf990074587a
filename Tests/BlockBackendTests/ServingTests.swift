// A disk served to a well-behaved frontend.

internal import BackendCore
internal import BlockBackend
internal import Hypervisor
internal import SharedRing
internal import TestSupport
internal import Testing
internal import XenWire

extension SimulatedDiskTests {
    @Suite
    struct ServingTests {
        let disk = DevicePath(kind: .vbd3, domain: guestDomain, index: 51712)

        @Test func readsAndWrites() async throws {
            let bed = try GuestBed()
            let image = try bed.makeImage(sectors: 2048)
            try await bed.makeDevice(disk, image: image)
            let (backend, life) = bed.start(disk)
            let frontend = try TestFrontend(bed.guest, disk)
            try #require(try await frontend.connect(), "\(bed.logs.all)")
            #expect(try await frontend.backendKey("sectors") == "2048")
            #expect(try await frontend.backendKey("sector-size") == "512")
            let pattern = (0..<8192).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ $0 / 512) }
            #expect(try await frontend.write(pattern, at: 16) == .okay)
            #expect(try await frontend.read(8192, at: 16, page: 20) == pattern)
            #expect(try await frontend.ask(.flushDiskCache) == .okay)
            #expect(Array(try bed.bytes(of: image)[16 * 512..<16 * 512 + 8192]) == pattern)
            let report = await backend.report()
            #expect(report.counters.first { $0.name == "reads" }?.value == 1)
            #expect(report.latency?.count == 3)
            await backend.drain()
            await life.value
            #expect(try await bed.read(disk.key("state")) == "4")
        }
    }
}
