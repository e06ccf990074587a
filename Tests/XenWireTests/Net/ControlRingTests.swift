// Every operation of the control ring, right and wrong.

import Testing
import XenWire

@Suite struct ControlRing {
    private static let queues = 4

    /// The status and data that a request is answered with at once; nil if it wants bytes.
    private func answer(_ settings: inout HashSettings, _ request: ControlRequest) -> [UInt32]? {
        guard case .answer(let response) = settings.plan(request, queues: ControlRing.queues) else { return nil }
        #expect(response.id == request.id && response.type == request.type)
        return [response.status, response.data]
    }

    private func withAlgorithm() -> HashSettings {
        var settings = HashSettings()
        #expect(answer(&settings, ControlRequest(id: 0, type: .setHashAlgorithm, 1)) == [0, 0])
        return settings
    }

    @Test func goldenBytes() {
        let slot = TestBytes("3412 0600 DDCCBBAA 80000000 01000000")
        let request = ControlRequest(id: 0x1234, type: .setHashMapping, 0xAABB_CCDD, 128, 1)
        #expect(ControlRequest(decoding: slot) == request)
        #expect(NetGoldenBytes.bytes(of: request.words, 16) == slot.bytes)
        let answer = TestBytes("3412 0600 02000000 0F000000")
        let response = ControlResponse(to: request, .invalidParameter, data: 15)
        #expect(NetGoldenBytes.bytes(of: response.words, 12) == answer.bytes)
        #expect(ControlResponse(decoding: answer) == response)
    }

    @Test func flags() {
        var settings = HashSettings()
        #expect(answer(&settings, ControlRequest(id: 1, type: .getHashFlags)) == [1, 0])
        #expect(answer(&settings, ControlRequest(id: 2, type: .setHashFlags, 1)) == [2, 0])
        settings = withAlgorithm()
        #expect(answer(&settings, ControlRequest(id: 3, type: .getHashFlags)) == [0, 15])
        for wrong in [16, 31, UInt32.max, 1 << 31] {
            #expect(answer(&settings, ControlRequest(id: 4, type: .setHashFlags, wrong)) == [2, 0])
        }
        #expect(answer(&settings, ControlRequest(id: 5, type: .setHashFlags, 9)) == [0, 0])
        #expect(settings.types == [.ipv4, .ipv6TCP])
        #expect(answer(&settings, ControlRequest(id: 6, type: .setHashFlags, 0)) == [0, 0])
        #expect(settings.types == [])
    }

    @Test(arguments: [2, 3, 255, UInt32.max])
    func unknownAlgorithms(_ number: UInt32) {
        var settings = withAlgorithm()
        #expect(answer(&settings, ControlRequest(id: 1, type: .setHashAlgorithm, number)) == [2, 0])
        #expect(settings.algorithm == .toeplitz)
        #expect(answer(&settings, ControlRequest(id: 1, type: .setHashAlgorithm, 0)) == [0, 0])
        #expect(settings.algorithm == .none)
    }

    @Test(arguments: [0, 8, 9, 10, 11, 255, 65535] as [UInt16])
    func whatIsNotSupported(_ type: UInt16) {
        var settings = withAlgorithm()
        let before = settings
        let request = ControlRequest(id: 1, type: ControlType(rawValue: type), 1, 2, 3)
        #expect(answer(&settings, request) == [1, 0])
        #expect(settings == before)
        #expect(settings.finish(request, bytes: TestBytes(count: 4096), queues: 4).status == 1)
    }

    @Test(arguments: [41, 128, 4096, 4097, UInt32.max])
    func keysThatAreTooLong(_ count: UInt32) {
        var settings = withAlgorithm()
        let request = ControlRequest(id: 1, type: .setHashKey, 5, count)
        #expect(answer(&settings, request) == [3, 0])
        #expect(settings.finish(request, bytes: TestBytes(count: 4096, filledWith: 1), queues: 4).status == 3)
        #expect(settings.toeplitz == ToeplitzHash())
    }

    @Test func keysReplaceEachOther() {
        var settings = withAlgorithm()
        for count in [40, 16, 1] as [UInt32] {
            let request = ControlRequest(id: 1, type: .setHashKey, 5, count)
            #expect(settings.plan(request, queues: 4) == .copy(GrantReference(5), byteCount: Int(count)))
            let key = TestBytes(count: Int(count), filledWith: UInt8(count))
            #expect(settings.finish(request, bytes: key, queues: 4).status == 0)
            #expect(settings.toeplitz == ToeplitzHash(key: key, count: Int(count)))
        }
        #expect(answer(&settings, ControlRequest(id: 1, type: .setHashKey, 5, 0)) == [0, 0])
        #expect(settings.toeplitz == ToeplitzHash())
    }

    @Test func mappingSizes() {
        var settings = withAlgorithm()
        #expect(answer(&settings, ControlRequest(id: 1, type: .getHashMappingSize)) == [0, 128])
        for wrong in [129, 1 << 16, UInt32.max] {
            #expect(answer(&settings, ControlRequest(id: 1, type: .setHashMappingSize, wrong)) == [2, 0])
        }
        for size in [128, 1, 0] as [UInt32] {
            #expect(answer(&settings, ControlRequest(id: 1, type: .setHashMappingSize, size)) == [0, 0])
            #expect(settings.mapping == [UInt32](repeating: 0, count: Int(size)))
        }
    }

    /// XSA-270: offset + count beyond the mapping, also where the sum wraps.
    @Test(
        arguments: [
            (0, 129), (1, 128), (128, 1), (129, 0), (UInt32.max, 1), (1, UInt32.max), (UInt32.max, UInt32.max),
            (UInt32.max - 3, 8), (0, 1025), (0, 1 << 30), (1 << 31, 1 << 31),
        ] as [(UInt32, UInt32)]
    )
    func xsa270EntriesBehindTheMapping(_ first: UInt32, _ count: UInt32) {
        var settings = withAlgorithm()
        #expect(answer(&settings, ControlRequest(id: 1, type: .setHashMappingSize, 128)) == [0, 0])
        let before = settings
        let request = ControlRequest(id: 2, type: .setHashMapping, 5, count, first)
        #expect(answer(&settings, request) == [2, 0])
        #expect(settings.finish(request, bytes: TestBytes(count: 4096), queues: 4).status == 2)
        #expect(settings == before)
    }

    /// XSA-270: queues that do not exist, seen in the copy; nothing is taken over.
    @Test(arguments: [4, 5, 1 << 31, UInt32.max])
    func xsa270QueuesThatDoNotExist(_ queue: UInt32) {
        var settings = withAlgorithm()
        #expect(answer(&settings, ControlRequest(id: 1, type: .setHashMappingSize, 4)) == [0, 0])
        let request = ControlRequest(id: 2, type: .setHashMapping, 5, 3, 0)
        #expect(settings.plan(request, queues: 4) == .copy(GrantReference(5), byteCount: 12))
        let bytes = TestBytes("01000000 02000000 00000000")
        bytes.set32(queue, at: 8)
        #expect(settings.finish(request, bytes: bytes, queues: 4).status == 2)
        #expect(settings.mapping == [0, 0, 0, 0])
        bytes.set32(3, at: 8)
        #expect(settings.finish(request, bytes: bytes, queues: 4).status == 0)
        #expect(settings.mapping == [1, 2, 3, 0])
    }

    /// The mapping shrank between plan and finish.
    @Test func xsa270AMappingThatIsGone() {
        var settings = withAlgorithm()
        _ = settings.plan(ControlRequest(id: 1, type: .setHashMappingSize, 128), queues: 4)
        let request = ControlRequest(id: 2, type: .setHashMapping, 5, 128, 0)
        #expect(settings.plan(request, queues: 4) == .copy(GrantReference(5), byteCount: 512))
        _ = settings.plan(ControlRequest(id: 3, type: .setHashMappingSize, 127), queues: 4)
        #expect(settings.finish(request, bytes: TestBytes(count: 512), queues: 4).status == 2)
        #expect(settings.finish(request, bytes: TestBytes(count: 4), queues: 4).status == 2)
    }

    @Test func anEmptyMappingChangesNothing() {
        var settings = withAlgorithm()
        #expect(answer(&settings, ControlRequest(id: 2, type: .setHashMapping, 5, 0, 0)) == [0, 0])
    }

    @Test func random() {
        var generator = SeededGenerator(seed: 0x6374_726c)
        var settings = HashSettings()
        let bytes = TestBytes(count: 4096)
        for _ in 0..<20000 {
            let number = { (generator: inout SeededGenerator) -> UInt32 in
                Bool.random(using: &generator)
                    ? UInt32.random(in: 0...130, using: &generator) : UInt32.random(in: 0 ... .max, using: &generator)
            }
            let request = ControlRequest(
                id: UInt16.random(in: 0 ... .max, using: &generator),
                type: ControlType(rawValue: UInt16.random(in: 0...11, using: &generator)),
                number(&generator),
                number(&generator),
                number(&generator)
            )
            bytes.set32(UInt32.random(in: 0...5, using: &generator), at: 4 * Int.random(in: 0..<4, using: &generator))
            if case .copy(_, let byteCount) = settings.plan(request, queues: 4) {
                #expect((1...512).contains(byteCount))
                _ = settings.finish(request, bytes: bytes, queues: 4)
            }
            #expect(settings.mapping.count <= 128 && settings.mapping.allSatisfy { $0 < 4 })
        }
    }
}
