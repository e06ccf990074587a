// Random requests in every shape of connection; every byte is compared with a model.

internal import BackendCore
internal import BlockBackend
internal import Hypervisor
internal import SharedRing
internal import SimulatedHypervisor
internal import Testing
internal import XenWire

extension SimulatedDiskTests {
    @Suite
    struct IntegrityTests {
        struct Shape: Sendable, CustomTestStringConvertible {
            var queues = 1
            var order = 0
            var persistent = false
            var abi = BlockABI.native
            var blockSize: Int?
            var inMemory = false
            var testDescription: String {
                "\(queues) queues, order \(order), \(persistent ? "persistent" : "copied"), \(abi.rawValue), \(blockSize ?? 512)"
                    + (inMemory ? ", in memory" : "")
            }
        }

        static let shapes = [
            Shape(), Shape(persistent: true), Shape(order: 1), Shape(queues: 2, order: 2, persistent: true),
            Shape(queues: 4, order: 3), Shape(queues: 2, order: 4, persistent: true), Shape(order: 4),
            Shape(abi: .x86_32), Shape(persistent: true, abi: .arm), Shape(queues: 3, blockSize: 4096),
            Shape(order: 2, persistent: true, blockSize: 4096),
            Shape(inMemory: true), Shape(queues: 2, order: 4, persistent: true, inMemory: true),
        ]

        @Test(arguments: shapes)
        func everyByteIsWhereItBelongs(shape: Shape) async throws {
            let sectors = 8192
            let scene = try await Scene(
                sectors: sectors,
                queues: shape.queues,
                ringOrder: shape.order,
                persistent: shape.persistent,
                abi: shape.abi,
                capabilities: BlockCapabilities(maxQueues: 4, logicalBlockSize: shape.blockSize),
                inMemory: shape.inMemory
            )
            #expect(try await scene.frontend.backendKey("sectors") == "\(sectors)")
            #expect(try await scene.frontend.backendKey("sector-size") == "\(shape.blockSize ?? 512)")
            var load = RandomLoad(scene.frontend, sectors: sectors, seed: UInt64(shape.order * 10 + shape.queues))
            load.blockSectors = (shape.blockSize ?? 512) / 512
            for _ in 0..<16 {
                for _ in 0..<30 { try load.issue() }
                load.push()
                try await load.collect(atLeast: 10)
            }
            try await load.collectAll()
            #expect(load.problems == [])
            #expect(load.answered > 120)
            #expect(try scene.bed.bytes(of: scene.image) == load.model)
            let persistent = await scene.counter("persistent-segments")
            #expect(shape.persistent ? persistent > 100 : persistent == 0)
            try await scene.end()
        }

        @Test func requestsAreSplitAndMerged() async throws {
            let scene = try await Scene(sectors: 8192)
            let frontend = scene.frontend
            // 1 MiB in 256 segments.
            var generator = SeededGenerator(state: 3)
            let data = generator.bytes(1 << 20)
            frontend.fill(page: 0, data)
            frontend.fillSegments(page: 300, frontend.segments(page: 0, bytes: 1 << 20))
            func ask(_ operation: BlockOperation) async throws -> BlockStatus? {
                frontend.ring.put {
                    frontend.abi.encodeIndirect(
                        operation,
                        id: 5,
                        sector: 64,
                        segmentCount: 256,
                        pages: [frontend.data.references[300]],
                        into: $0
                    )
                }
                frontend.ring.push()
                return try await frontend.ring.responses(1).first?.status
            }
            #expect(try await ask(.write) == .okay)
            #expect(await scene.counter("split") == 3)
            frontend.fill(page: 0, [UInt8](repeating: 0, count: 1 << 20))
            #expect(try await ask(.read) == .okay)
            #expect(frontend.contents(page: 0, count: 1 << 20) == data)
            // 16 neighbours in one turn.
            for index in 0..<16 {
                let segments = frontend.segments(page: index, bytes: 4096)
                frontend.ring.put {
                    frontend.abi.encode(
                        .read,
                        id: UInt64(index),
                        sector: UInt64(64 + index * 8),
                        segments: segments,
                        into: $0
                    )
                }
            }
            frontend.ring.push()
            let responses = try await frontend.ring.responses(16)
            #expect(responses.count == 16 && responses.allSatisfy { $0.status == .okay })
            #expect(frontend.contents(page: 0, count: 65536) == Array(data[..<65536]))
            #expect(await scene.counter("merged") == 15)
            try await scene.end()
        }

        /// More data in flight than the loop has buffers: requests wait, nothing fails, nothing starves.
        @Test(arguments: [false, true])
        func buffersRunOut(inMemory: Bool) async throws {
            let scene = try await Scene(sectors: 65536, ringOrder: 1, inMemory: inMemory)
            let frontend = scene.frontend
            frontend.fillSegments(page: 300, frontend.segments(page: 0, bytes: 1 << 20))
            for index in 0..<40 {
                frontend.ring.put {
                    frontend.abi.encodeIndirect(
                        .read,
                        id: UInt64(index),
                        sector: UInt64(index * 512),
                        segmentCount: 256,
                        pages: [frontend.data.references[300]],
                        into: $0
                    )
                }
            }
            frontend.ring.push()
            let responses = try await frontend.ring.responses(40)
            #expect(responses.count == 40 && responses.allSatisfy { $0.status == .okay })
            #expect(await scene.counter("starved") > 0)
            try await scene.end()
        }
    }
}
