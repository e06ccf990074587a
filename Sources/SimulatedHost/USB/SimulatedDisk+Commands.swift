// The SCSI commands of the simulated flash disk (SPC-4, SBC-3).

internal import HostUSB

extension SimulatedDisk {
    /// Decides what a command answers. `descriptor` is its 16 bytes.
    func carryOut(_ command: inout Command, _ descriptor: [UInt8]) {
        let operation = descriptor[0]
        let sense = command.sense
        if operation != 0x03 { command.sense = (0, 0) }
        switch operation {
        case 0x00, 0x1b, 0x1e, 0x35: break  // TEST UNIT READY, START STOP UNIT, PREVENT ALLOW, SYNCHRONIZE CACHE
        case 0x03: reply(&command, requestedSense(sense), limit: Int(descriptor[4]))
        case 0x12: inquire(&command, descriptor)
        case 0x1a: reply(&command, [3, 0, 0, 0], limit: Int(descriptor[4]))  // MODE SENSE(6)
        case 0x23: reply(&command, formatCapacities, limit: SimulatedDisk.number(descriptor, 7, 2))
        case 0x25: reply(&command, capacity, limit: 8)
        case 0x28, 0x2a:
            move(&command, block: SimulatedDisk.number(descriptor, 2, 4), count: SimulatedDisk.number(descriptor, 7, 2))
        case 0xa8, 0xaa:
            move(&command, block: SimulatedDisk.number(descriptor, 2, 4), count: SimulatedDisk.number(descriptor, 6, 4))
        case 0x2f:  // VERIFY(10)
            let block = SimulatedDisk.number(descriptor, 2, 4)
            if block > blockCount || SimulatedDisk.number(descriptor, 7, 2) > blockCount - block {
                fail(&command, key: 5, code: 0x21)
            }
        default: fail(&command, key: 5, code: 0x20)
        }
    }

    private func move(_ command: inout Command, block: Int, count: Int) {
        if block > blockCount || count > blockCount - block { return fail(&command, key: 5, code: 0x21) }
        command.isMedium = true
        command.position = block * SimulatedDisk.blockBytes
        command.left = count * SimulatedDisk.blockBytes
    }

    private func inquire(_ command: inout Command, _ descriptor: [UInt8]) {
        if descriptor[1] & 1 != 0 { return fail(&command, key: 5, code: 0x24) }
        // Direct access, removable, SPC-2.
        let names = Array("xenback ".utf8) + Array("Simulated disk  ".utf8) + Array("1.00".utf8)
        reply(&command, [0, 0x80, 4, 2, 31, 0, 0, 0] + names, limit: SimulatedDisk.number(descriptor, 3, 2))
    }

    private func reply(_ command: inout Command, _ bytes: [UInt8], limit: Int) {
        command.reply = bytes
        command.left = min(bytes.count, limit)
    }

    private func fail(_ command: inout Command, key: UInt8, code: UInt8) {
        command.hasFailed = true
        command.sense = (key, code)
        command.left = 0
    }

    private func requestedSense(_ sense: (key: UInt8, code: UInt8)) -> [UInt8] {
        [0x70, 0, sense.key, 0, 0, 0, 0, 10, 0, 0, 0, 0, sense.code, 0, 0, 0, 0, 0]
    }

    private var capacity: [UInt8] {
        SimulatedDisk.bytes(blockCount - 1) + SimulatedDisk.bytes(SimulatedDisk.blockBytes)
    }

    private var formatCapacities: [UInt8] {
        [0, 0, 0, 8] + SimulatedDisk.bytes(blockCount) + [2] + SimulatedDisk.bytes(SimulatedDisk.blockBytes)[1...]
    }

    /// Four bytes, the highest first.
    private static func bytes(_ number: Int) -> [UInt8] {
        [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: number >> $0) }
    }

    private static func number(_ descriptor: [UInt8], _ start: Int, _ count: Int) -> Int {
        descriptor[start..<start + count].reduce(0) { $0 << 8 | Int($1) }
    }
}
