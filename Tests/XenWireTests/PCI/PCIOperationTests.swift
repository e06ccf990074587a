// Operations of pciif.h as bytes: golden ones both ways, and every number a frontend may choose wrongly.

import Testing
import XenWire

/// An operation's 548 bytes as a C program fills them in.
private func operation(
    _ command: UInt32,
    offset: Int32 = 0,
    size: Int32 = 0,
    value: UInt32 = 0,
    entries: [UInt16] = []
) -> TestBytes {
    let bytes = TestBytes(count: PCIWire.operationSize)
    bytes.set32(command, at: 0)
    bytes.set32(UInt32(bitPattern: offset), at: 20)
    bytes.set32(UInt32(bitPattern: size), at: 24)
    bytes.set32(value, at: 28)
    for (index, entry) in entries.enumerated() { bytes.set16(entry, at: 36 + 4 * index + 2) }
    return bytes
}

private func outcome(_ bytes: TestBytes) -> Result<PCIRequest, PCIError> {
    do throws(PCIError) {
        return .success(try PCIRequest(validating: RawPCIOperation(bytes)))
    } catch {
        return .failure(error)
    }
}

@Suite struct PCIOperations {
    /// pcifront of Linux 6.1 reading 2 bytes at 0x3C of 0000:00:01.2, flags in front.
    @Test func goldenRead() throws {
        let page = TestBytes(
            "01000000 00000000 00000000 00000000 00000000 0A000000 3C000000 02000000 00000000 00000000"
                + String(repeating: "00000000", count: 128) + String(repeating: "00", count: 20)
        )
        #expect(page.byteCount == PCIWire.size && page.u32(PCIWire.flagsOffset) == PCIWire.frontendActive)
        let bytes = TestBytes(Array(page.bytes[PCIWire.operationOffset...].prefix(PCIWire.operationSize)))
        let raw = RawPCIOperation(bytes)
        #expect(raw.command == 0 && raw.error == .success && raw.domain == 0 && raw.bus == 0 && raw.devfn == 10)
        #expect(raw.offset == 0x3C && raw.size == 2 && raw.value == 0 && raw.info == 0)
        #expect(outcome(bytes) == .success(.read(PCIRegister(offset: 0x3C, size: 2)!)))
        PCIAnswer(value: 0x0110).encode(into: bytes)
        #expect(
            Array(bytes.bytes.prefix(36))
                == TestBytes(
                    "00000000 00000000 00000000 00000000 0A000000 3C000000 02000000 10010000 00000000"
                ).bytes
        )
        PCIAnswer(.accessDenied).encode(into: bytes)
        #expect(bytes.u32(4) == 0xFFFF_FFFD && bytes.u32(28) == 0)
    }

    @Test func goldenVectors() throws {
        let bytes = operation(4, value: 3, entries: [0, 2, 1])
        #expect(outcome(bytes) == .success(.enableMSIX([0, 2, 1])))
        PCIAnswer(vectors: [0, 2, 1].map { PCIVector(entry: $0, vector: 55 + $0) }).encode(into: bytes)
        #expect(
            bytes.u32(28) == 0
                && Array(bytes.bytes[36..<52]) == TestBytes("3700 0000 3900 0200 3800 0100 0000 0000").bytes
        )
        #expect(RawPCIOperation(bytes).vector(1) == PCIVector(entry: 2, vector: 57))
    }

    @Test(
        arguments: [
            (0, 0, 1, nil), (0, 4095, 1, nil), (0, 4094, 2, nil), (0, 4092, 4, nil), (0, 0, 0, .invalidOffset),
            (0, 0, 3, .invalidOffset), (0, 0, 8, .invalidOffset), (0, 0, -1, .invalidOffset),
            (0, 0, .min, .invalidOffset),
            (0, 0, .max, .invalidOffset), (0, 1, 2, .invalidOffset), (0, 2, 4, .invalidOffset),
            (0, -4, 4, .invalidOffset),
            (0, .min, 4, .invalidOffset), (0, .max, 1, .invalidOffset), (0, 4096, 1, .invalidOffset),
            (0, 4096, 4, .invalidOffset), (1, 4, 2, nil), (1, 5, 2, .invalidOffset), (2, -1, 99, nil), (3, 0, 0, nil),
            (5, 0, 0, nil), (6, 0, 1, .notImplemented), (7, 0, 1, .notImplemented), (8, 0, 1, .notImplemented),
            (9, 0, 1, .notImplemented), (10, 0, 1, .notImplemented), (11, 0, 1, .notImplemented),
            (.max, 0, 1, .notImplemented),
        ] as [(UInt32, Int32, Int32, PCIError?)]
    )
    func validation(_ command: UInt32, _ offset: Int32, _ size: Int32, _ expected: PCIError?) {
        switch outcome(operation(command, offset: offset, size: size)) {
        case .success: #expect(expected == nil)
        case .failure(let error): #expect(error == expected)
        }
    }

    @Test func vectors() {
        let all = (0..<128).map { UInt16($0) }
        #expect(outcome(operation(4, value: 128, entries: all)) == .success(.enableMSIX(all)))
        for count in [0, 129, .max] as [UInt32] {
            #expect(outcome(operation(4, value: count, entries: all)) == .failure(.invalidArgument))
        }
        #expect(outcome(operation(4, value: 3, entries: [4, 5, 4])) == .failure(.invalidArgument))
    }

    /// What is wider than the register is dropped.
    @Test func writes() {
        let register = PCIRegister(offset: 0x0C, size: 1)!
        #expect(outcome(operation(1, offset: 0x0C, size: 1, value: 0xABCD_EF10)) == .success(.write(register, 0x10)))
        #expect(register.mask == 0xFF && PCIRegister(offset: 0, size: 4)!.mask == .max)
        #expect(PCIRegister(offset: 0, size: 2)!.mask == 0xFFFF && "\(register)" == "1 bytes at 00c")
    }

    @Test func errorOperation() {
        let bytes = TestBytes(count: PCIWire.errorOperationSize)
        PCIErrorOperation(.errorDetected, .frozen, PCIAddress(segment: 1, bus: 2, deviceFunction: 3)).encode(
            into: bytes
        )
        #expect(bytes.bytes == TestBytes("06000000 02000000 01000000 02000000 03000000").bytes)
        bytes.set32(5, at: 4)
        #expect(PCIErrorOperation.recovery(bytes) == .recovered)
        for number in [0, 7, .max] as [UInt32] {
            bytes.set32(number, at: 4)
            #expect(PCIErrorOperation.recovery(bytes) == nil)
        }
    }
}
