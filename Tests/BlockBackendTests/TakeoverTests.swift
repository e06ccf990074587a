// A backend that dies at any moment and its successor: the guest sees neither errors nor wrong bytes.

internal import BackendCore
internal import FrontendDrivers
internal import HostIO
internal import Hypervisor
internal import SharedRing
internal import SimulatedHypervisor
internal import SystemPackage
internal import TestSupport
internal import Testing
internal import XenWire

extension SimulatedDiskTests {
    @Suite
    struct TakeoverTests {
        @Test(arguments: [false, true], [false, true])
        func nothingIsLostOverManyDeaths(persistent: Bool, inMemory: Bool) async throws {
            let sectors = 4096
            let disk = try await ServedDisk(
                sectors: sectors,
                inMemory: inMemory,
                queues: 2,
                ringOrder: 1,
                dataPages: 256,
                persistent: persistent
            )
            var load = RandomLoad(disk.frontend, sectors: sectors, seed: 21)
            for death in 0..<12 {
                for _ in 0..<20 { try load.issue() }
                load.push()
                // Sometimes at once, sometimes after some answers.
                if death % 3 != 0 { try await load.collect(atLeast: Int(death)) }
                try await disk.die()
                for _ in 0..<5 { try load.issue() }
                load.push()
                try disk.succeed(inNewProcess: true)
                try await load.collectAll()
                try #require(load.problems == [], "death \(death): \(disk.bed.logs.all.suffix(20))")
            }
            #expect(try disk.bed.bytes(of: disk.image) == load.model)
            #expect(try await disk.frontend.backendKey("state") == "4")
            await disk.stop()
        }

        @Test func anUpgradeTakesNoRequestTwice() async throws {
            let disk = try await ServedDisk()
            let frontend = disk.frontend
            #expect(try await frontend.write([UInt8](repeating: 1, count: 512), at: 0) == .okay)
            await disk.stop()
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
            try disk.succeed()
            let responses = try await frontend.ring.responses(1)
            #expect(responses == [BlockResponse(id: 77, operation: .write, status: .okay)])
            #expect(
                try await frontend.read(1024, at: 0, page: 8) == [UInt8](repeating: 1, count: 512)
                    + [UInt8](repeating: 2, count: 512)
            )
            await disk.stop()
        }

        @Test func aMissingJournalClosesTheDeviceInsteadOfGuessing() async throws {
            let disk = try await ServedDisk()
            #expect(try await disk.frontend.write([UInt8](repeating: 1, count: 512), at: 0) == .okay)
            try await disk.die()
            RequestJournal.remove(at: disk.journal)
            try disk.succeed()
            #expect(try await disk.frontend.backend(reaches: .closing))
            #expect(try await disk.bed.read(ServedDisk.path.errorNode)?.contains("journal") ?? false)
            await disk.stop()
        }

        /// A journal that cannot be mapped whole is there all the same: the guest waits, and loses nothing.
        @Test func aFullRunDirectoryIsWaitedFor() async throws {
            let disk = try await ServedDisk(ringOrder: 2)
            #expect(try await disk.frontend.write([UInt8](repeating: 1, count: 512), at: 0) == .okay)
            try await disk.die()
            // The journal as a predecessor left it, with holes, in a file system without room for them.
            let small = try SmallFileSystem(kilobytes: 256)
            let folder = disk.journal.removingLastComponent()
            let bytes = try Files.contents(of: disk.journal, limit: 1 << 20)
            try small.cover(folder)
            let file = try FileDescriptor.open(disk.journal, .readWrite, options: .create, permissions: .ownerReadWrite)
            try file.closeAfter {
                for (page, start) in stride(from: 0, to: bytes.count, by: 4096).enumerated() {
                    let part = bytes[start..<min(start + 4096, bytes.count)]
                    if page == 0 || part.contains(where: { $0 != 0 }) {
                        _ = try file.writeAll(toAbsoluteOffset: Int64(start), part)
                    }
                }
                try file.resize(to: Int64(bytes.count))
            }
            try small.fill()
            try disk.succeed(inNewProcess: true)
            try #require(
                await eventually {
                    await disk.backend.report().phase == "waiting for the rings"
                }
            )
            #expect(try await disk.frontend.backendKey("state") == "4")
            try small.makeRoom()
            #expect(try await disk.frontend.read(512, at: 0, page: 8) == [UInt8](repeating: 1, count: 512))
            #expect(try await disk.frontend.backendKey("state") == "4")
            await disk.stop()
        }

        /// What a worker leaves that dies while a resumed guest's new rings are connected at 4: no journal, or that of
        /// the old rings, and requests that nobody has answered.
        @Test(arguments: [false, true]) func ringsWithoutAnAnswerAreServedFromTheirBeginning(old: Bool) async throws {
            let disk = try await ServedDisk()
            let frontend = disk.frontend
            try await disk.die()
            RequestJournal.remove(at: disk.journal)
            if old {
                _ = try RequestJournal.create(at: disk.journal, identity: "other rings", layout: .slots(32, queues: 1))
            }
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
            try disk.succeed(inNewProcess: true)
            let responses = try await frontend.ring.responses(1)
            #expect(responses == [BlockResponse(id: 77, operation: .write, status: .okay)])
            #expect(try await frontend.read(512, at: 1, page: 8) == [UInt8](repeating: 2, count: 512))
            #expect(try await frontend.backendKey("state") == "4")
            await disk.stop()
        }

        @Test func aFrontendThatRewroteItsRingIsClosedAtTakeover() async throws {
            let disk = try await ServedDisk()
            #expect(try await disk.frontend.write([UInt8](repeating: 1, count: 512), at: 0) == .okay)
            try await disk.die()
            disk.frontend.ring.raw.grant.pages.storeRelease(0x8000_0000, at: RingLayout.responseProducer)
            try disk.succeed()
            #expect(try await disk.frontend.backend(reaches: .closing))
            await disk.stop()
        }
    }
}
