// Requests that are wrong: each is answered, the device goes on, the bystander notices nothing.

internal import BackendCore
internal import BlockBackend
internal import FrontendDrivers
internal import Hypervisor
internal import SharedRing
internal import SimulatedHypervisor
internal import Synchronization
internal import TestSupport
internal import Testing
internal import XenWire

internal import class Foundation.Thread

extension SimulatedDiskTests {
    @Suite
    struct BadRequestTests {
        /// Puts raw bytes and returns the answer's status.
        private func ask(_ frontend: TestFrontend, _ fill: (Slot) -> Void) async throws -> BlockStatus? {
            frontend.ring.put(fill)
            frontend.ring.push()
            let responses = try await frontend.ring.responses(1)
            return responses.first?.status
        }

        @Test(arguments: BlockABI.allCases)
        func segmentsThatMakeNoSense(abi: BlockABI) async throws {
            let scene = try await Scene(abi: abi)
            let frontend = scene.frontend
            let reference = frontend.data.references[0]
            func segment(_ first: UInt8, _ last: UInt8) -> BlockSegment {
                BlockSegment(reference: reference, firstSector: first, lastSector: last)
            }
            // 0 segments.
            #expect(try await frontend.ask(.read, sector: 0) == .error)
            #expect(try await frontend.ask(.write, sector: 0) == .error)
            // Last before first, last beyond the page.
            #expect(try await frontend.ask(.read, segments: [segment(5, 4)]) == .error)
            #expect(try await frontend.ask(.write, segments: [segment(0, 8)]) == .error)
            #expect(try await frontend.ask(.write, segments: [segment(255, 255)]) == .error)
            #expect(try await frontend.ask(.read, segments: [segment(0, 7), segment(7, 0)]) == .error)
            // 12 and 255 segments, of which the slot holds 11.
            for count in [12, 255] as [UInt8] {
                let status = try await ask(frontend) { slot in
                    abi.encode(.write, id: 1, sector: 0, segments: [segment(0, 7)], into: slot)
                    slot.set8(count, at: 1)
                }
                #expect(status == .error)
            }
            #expect(await scene.counter("frontend-faults") == 8)
            #expect(await scene.counter("writes") == 0)
            try await scene.end()
        }

        @Test func sectorsBeyondTheEndAndBeyond64Bits() async throws {
            let scene = try await Scene(sectors: 2048)
            let page = scene.frontend.segments(page: 0, bytes: 4096)
            for sector in [2041, 2048, 1 << 40, UInt64.max - 7, UInt64.max] {
                #expect(try await scene.frontend.ask(.read, sector: sector, segments: page) == .error, "\(sector)")
                #expect(try await scene.frontend.ask(.write, sector: sector, segments: page) == .error, "\(sector)")
            }
            #expect(try await scene.frontend.ask(.read, sector: 2040, segments: page) == .okay)
            let abi = scene.frontend.abi
            for (sector, count) in [(0, 2049), (2047, 2), (0, 0), (UInt64.max, 2), (1, UInt64.max)]
                as [(UInt64, UInt64)]
            {
                let status = try await ask(scene.frontend) {
                    abi.encodeDiscard(id: 1, sector: sector, sectorCount: count, into: $0)
                }
                #expect(status == .error, "\(sector) + \(count)")
            }
            #expect(try scene.bed.bytes(of: scene.image).count == 2048 * 512)
            try await scene.end()
        }

        @Test func unknownAndReservedOperations() async throws {
            let scene = try await Scene()
            for operation in [4, 7, 42, 128, 255] as [UInt8] {
                let status = try await scene.frontend.ask(BlockOperation(rawValue: operation))
                #expect(status == .unsupported, "\(operation)")
            }
            try await scene.end()
        }

        @Test(arguments: [0, 257, 512, 65535] as [UInt16])
        func indirectRequestsOfTooManySegments(count: UInt16) async throws {
            let scene = try await Scene()
            let frontend = scene.frontend
            let status = try await ask(frontend) {
                frontend.abi.encodeIndirect(
                    .write,
                    id: 9,
                    sector: 0,
                    segmentCount: count,
                    pages: [frontend.data.references[0]],
                    into: $0
                )
            }
            #expect(status == .error)
            try await scene.end()
        }

        @Test func indirectRequestsWithBadPagesSegmentsAndOperations() async throws {
            let scene = try await Scene()
            let frontend = scene.frontend
            func indirect(_ operation: BlockOperation, _ page: GrantReference) async throws -> BlockStatus? {
                try await ask(frontend) {
                    frontend.abi.encodeIndirect(operation, id: 9, sector: 0, segmentCount: 2, pages: [page], into: $0)
                }
            }
            let good = frontend.segments(page: 10, bytes: 8192)
            frontend.fillSegments(page: 0, good)
            #expect(try await indirect(.write, frontend.data.references[0]) == .okay)
            #expect(try await indirect(.write, GrantReference(0xFFFF_FFFF)) == .error)
            #expect(try await indirect(.flushDiskCache, frontend.data.references[0]) == .error)
            #expect(try await indirect(.indirect, frontend.data.references[0]) == .error)
            frontend.fillSegments(
                page: 0,
                [good[0], BlockSegment(reference: frontend.data.references[11], firstSector: 3, lastSector: 2)]
            )
            #expect(try await indirect(.read, frontend.data.references[0]) == .error)
            frontend.fillSegments(
                page: 0,
                [good[0], BlockSegment(reference: GrantReference(0x7FFF_FFFF), firstSector: 0, lastSector: 7)]
            )
            #expect(try await indirect(.read, frontend.data.references[0]) == .error)
            try await scene.end()
        }

        @Test(arguments: [false, true])
        func grantsThatAreRevokedForeignOrReadOnly(persistent: Bool) async throws {
            let scene = try await Scene(persistent: persistent)
            let frontend = scene.frontend
            let machine = scene.bed.machine
            let stranger = DomainID(8)!
            try machine.createDomain(stranger)
            let foreign = try machine.hypervisor(for: stranger).sharing
                .share(pageCount: 300, with: .initial, access: .readWrite)
            let readOnly = try scene.bed.guest.sharing.share(pageCount: 1, with: .initial, access: .readOnly)
            let revoked = try scene.bed.guest.sharing.share(pageCount: 1, with: .initial, access: .readWrite)
            try scene.bed.guest.revoke(revoked.references[0])
            func ask(_ operation: BlockOperation, _ reference: GrantReference) async throws -> BlockStatus? {
                let segment = BlockSegment(reference: reference, firstSector: 0, lastSector: 7)
                return try await frontend.ask(operation, sector: 8, segments: [segment])
            }
            #expect(try await ask(.read, revoked.references[0]) == .error)
            #expect(try await ask(.write, revoked.references[0]) == .error)
            // A page we may only read: fine to write to the disk from, not to read into.
            #expect(try await ask(.write, readOnly.references[0]) == .okay)
            #expect(try await ask(.read, readOnly.references[0]) == .error)
            // A number that only another domain has granted.
            let mine = Set((frontend.data.references + scene.bystander.data.references).map(\.rawValue))
            if let only = foreign.references.first(where: { !mine.contains($0.rawValue) && $0.rawValue > 700 }) {
                #expect(try await ask(.read, only) == .error)
            }
            #expect(try await ask(.read, GrantReference(.max)) == .error)
            try await scene.end()
        }

        @Test(arguments: [false, true])
        func oneGrantManyTimesInARequest(persistent: Bool) async throws {
            let scene = try await Scene(persistent: persistent)
            let frontend = scene.frontend
            let page = (0..<4096).map { UInt8(truncatingIfNeeded: $0 &* 3) }
            frontend.fill(page: 0, page)
            let segment = BlockSegment(reference: frontend.data.references[0], firstSector: 0, lastSector: 7)
            let repeated = [BlockSegment](repeating: segment, count: 11)
            #expect(try await frontend.ask(.write, sector: 0, segments: repeated) == .okay)
            #expect(try await frontend.read(11 * 4096, at: 0, page: 20) == (0..<11).flatMap { _ in page })
            #expect(try await frontend.ask(.read, sector: 0, segments: repeated) == .okay)
            try await scene.end()
        }

        @Test func readOnlyDisksRefuseEveryChange() async throws {
            let scene = try await Scene(mode: "r")
            let page = scene.frontend.segments(page: 0, bytes: 4096)
            #expect(try await scene.frontend.backendKey("info") == "4")
            #expect(try await scene.frontend.backendKey("feature-discard") == nil)
            #expect(try await scene.frontend.ask(.write, segments: page) == .error)
            #expect(try await scene.frontend.ask(.writeBarrier, segments: page) == .error)
            #expect(try await scene.frontend.ask(.flushDiskCache, segments: page) == .error)
            #expect(try await scene.frontend.ask(.read, segments: page) == .okay)
            let abi = scene.frontend.abi
            let discard = try await ask(scene.frontend) {
                abi.encodeDiscard(id: 1, sector: 0, sectorCount: 8, into: $0)
            }
            #expect(discard == .unsupported)
            try await scene.end(victimServes: false)
        }

        /// A thread rewrites all slots and all indirect pages as fast as it can while requests are taken.
        @Test func slotsRewrittenUnderOurEyes() async throws {
            let scene = try await Scene(ringOrder: 1)
            let frontend = scene.frontend
            let (ring, data) = (frontend.ring.raw.grant.pages, frontend.data.pages)
            let noise = try PrivatePages(byteCount: 8192)
            var generator = SeededGenerator(state: 5)
            noise.write(generator.bytes(8192), at: 0)
            let isOver = Atomic(false)
            let scribbler = Thread {
                var round = 0
                while !isOver.load(ordering: .relaxed) {
                    ring.copyIn(at: 64, count: 8192 - 64, from: noise, at: round % 64)
                    data.copyIn(at: 0, count: 4096, from: noise, at: round % 4096)
                    round += 1
                }
            }
            scribbler.start()
            var asked = 0
            let end = ContinuousClock.now + .milliseconds(800)
            while ContinuousClock.now < end {
                while frontend.ring.ring.free > 0 {
                    let segments = frontend.segments(page: 1, bytes: 4096)
                    frontend.ring.put { frontend.abi.encode(.write, id: 1, sector: 0, segments: segments, into: $0) }
                    asked += 1
                }
                frontend.ring.push()
                _ = try frontend.ring.take()
                try await Task.sleep(for: .microseconds(100))
            }
            isOver.store(true, ordering: .relaxed)
            let isAnswered = try await eventually {
                _ = try frontend.ring.take()
                return frontend.ring.ring.responseConsumer == frontend.ring.ring.requestProducer
            }
            #expect(asked > 100 && isAnswered)
            #expect(scene.bed.logs.count("frontend fault") < 20)
            try await scene.end()
        }

        @Test func faultsAreCountedAndHardlyLogged() async throws {
            let scene = try await Scene()
            let start = ContinuousClock.now
            for _ in 0..<200 { #expect(try await scene.frontend.ask(.read, sector: 1 << 40) == .error) }
            #expect(await scene.counter("frontend-faults") == 200)
            // 5 at once, then one every 10 seconds.
            let passed = Int((ContinuousClock.now - start).components.seconds)
            #expect(scene.bed.logs.count("frontend fault") <= 6 + passed / 10)
            #expect(await scene.backend.report().lastFault != nil)
            try await scene.end()
        }
    }
}
