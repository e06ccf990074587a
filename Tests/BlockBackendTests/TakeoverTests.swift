// A backend that dies at any moment and its successor: the guest sees neither errors nor wrong bytes.

internal import BackendCore
internal import Hypervisor
internal import SharedRing
internal import SimulatedHypervisor
internal import SystemPackage
internal import Testing
internal import XenWire

@testable internal import BlockBackend

extension SimulatedDiskTests {
    @Suite
    struct TakeoverTests {
        let disk = DevicePath(kind: .vbd3, domain: guestDomain, index: 51712)

        @Test(arguments: [false, true], [false, true])
        func nothingIsLostOverManyDeaths(persistent: Bool, inMemory: Bool) async throws {
            let bed = try TestBed()
            let sectors = 4096
            let image = try bed.makeImage(sectors: sectors, inMemory: inMemory)
            try await bed.makeDevice(disk, image: image)
            var (backend, life) = bed.start(disk)
            let frontend = try TestFrontend(bed.guest, disk, queues: 2, ringOrder: 1, dataPages: 256)
            try #require(try await frontend.connect(persistent: persistent), "\(bed.logs.all)")
            var load = RandomLoad(frontend, sectors: sectors, seed: 21)
            for death in 0..<12 {
                for _ in 0..<20 { try load.issue() }
                load.push()
                // Sometimes at once, sometimes after some answers.
                if death % 3 != 0 { try await load.collect(atLeast: Int(death)) }
                try await #require(backend as? BlockBackend).abandon()
                await life.value
                for _ in 0..<5 { try load.issue() }
                load.push()
                try bed.renewEnvironment()
                (backend, life) = bed.start(disk)
                try await load.collectAll()
                #expect(load.problems == [])
            }
            #expect(try bed.bytes(of: image) == load.model)
            #expect(try await frontend.backendKey("state") == "4")
            await backend.drain()
            await life.value
        }

        @Test func anUpgradeTakesNoRequestTwice() async throws {
            let bed = try TestBed()
            let image = try bed.makeImage(sectors: 1024)
            try await bed.makeDevice(disk, image: image)
            let (old, oldLife) = bed.start(disk)
            let frontend = try TestFrontend(bed.guest, disk)
            try #require(try await frontend.connect())
            #expect(try await frontend.write([UInt8](repeating: 1, count: 512), at: 0) == .okay)
            await old.drain()
            await oldLife.value
            // Asked while nobody serves.
            frontend.fill(page: 0, [UInt8](repeating: 2, count: 512))
            frontend.ring.put {
                frontend.abi.encode(
                    .write,
                    id: 77,
                    sector: 1,
                    segments: frontend.segments(page: 0, bytes: 512),
                    into: $0
                )
            }
            frontend.ring.push()
            let (new, newLife) = bed.start(disk)
            let responses = try await frontend.ring.responses(1)
            #expect(responses == [BlockResponse(id: 77, operation: .write, status: .okay)])
            #expect(
                try await frontend.read(1024, at: 0, page: 8) == [UInt8](repeating: 1, count: 512)
                    + [UInt8](repeating: 2, count: 512)
            )
            await new.drain()
            await newLife.value
        }

        @Test func aMissingJournalClosesTheDeviceInsteadOfGuessing() async throws {
            let bed = try TestBed()
            let image = try bed.makeImage(sectors: 1024)
            try await bed.makeDevice(disk, image: image)
            let (backend, life) = bed.start(disk)
            let frontend = try TestFrontend(bed.guest, disk)
            try #require(try await frontend.connect())
            try await #require(backend as? BlockBackend).abandon()
            await life.value
            RequestJournal.remove(at: bed.folder.appending("journal").appending("vbd3-7-51712"))
            let (next, nextLife) = bed.start(disk)
            #expect(try await frontend.backend(reaches: .closing))
            #expect(try await bed.read(disk.errorNode)?.contains("journal") ?? false)
            await next.drain()
            await nextLife.value
        }

        @Test func aFrontendThatRewroteItsRingIsClosedAtTakeover() async throws {
            let bed = try TestBed()
            let image = try bed.makeImage(sectors: 1024)
            try await bed.makeDevice(disk, image: image)
            let (backend, life) = bed.start(disk)
            let frontend = try TestFrontend(bed.guest, disk)
            try #require(try await frontend.connect())
            #expect(try await frontend.write([UInt8](repeating: 1, count: 512), at: 0) == .okay)
            try await #require(backend as? BlockBackend).abandon()
            await life.value
            frontend.ring.grant.pages.storeRelease(0x8000_0000, at: RingLayout.responseProducer)
            let (next, nextLife) = bed.start(disk)
            #expect(try await frontend.backend(reaches: .closing))
            await next.drain()
            await nextLife.value
        }
    }
}
