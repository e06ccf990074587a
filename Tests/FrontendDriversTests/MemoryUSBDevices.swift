// Devices for the USB backend of these tests: a stick, a keyboard, a sound card, an endpoint that does as it is told.

internal import Synchronization
internal import XenWire

private func makeDescriptors(_ text: String) -> [UInt8] {
    let digits = text.filter { !$0.isWhitespace }.utf8.map { UInt8(String(UnicodeScalar($0)), radix: 16)! }
    return stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
}

private func makeConfiguration(_ interfaces: UInt8, _ rest: String) -> [UInt8] {
    let rest = makeDescriptors(rest)
    return [9, 2, UInt8(9 + rest.count), 0, interfaces, 1, 0, 0x80, 50] + rest
}

/// A stick of 512-byte blocks behind bulk-only transport.
final class MemoryStick: MemoryUSBDevice {
    let speed = USBIFSpeed.high
    let device = makeDescriptors("12 01 0002 00 00 00 40 8107 8055 0001 01 02 03 01")
    let configuration = makeConfiguration(
        1,
        "09 04 00 00 02 08 06 50 00  07 05 81 02 0002 00  07 05 02 02 0002 00"
    )

    private struct State {
        var blocks: [UInt8]
        var command: [UInt8] = []
        var tag: [UInt8] = []
        var reply: [UInt8]?
        var toWrite: (place: Int, left: Int)?
        var status: UInt8 = 0
        var isHalted = false
        var statusDue = false
    }
    private let state: Mutex<State>

    /// - Parameter short: cuts this many bytes off what is read.
    let short: Int

    init(blocks: Int, short: Int = 0) {
        state = Mutex(State(blocks: [UInt8](repeating: 0, count: blocks * 512)))
        self.short = short
    }

    func control(_ setup: SetupPacket, _ data: [UInt8]) -> MemoryUSBAnswer {
        guard case .clearHalt = USBControlRequest(setup) else { return .stall }
        state.withLock { $0.isHalted = false }
        return .okay
    }

    func transfer(_ endpoint: USBEndpointAddress, _ data: [UInt8], count: Int) -> MemoryUSBAnswer? {
        state.withLock { state in
            if endpoint.direction == .out {
                if let (place, left) = state.toWrite {
                    state.blocks.replaceSubrange(place..<place + data.count, with: data)
                    state.toWrite = left > data.count ? (place + data.count, left - data.count) : nil
                } else {
                    take(data, &state)
                }
                return .okay
            }
            return reply(count, &state)
        }
    }

    private func reply(_ count: Int, _ state: inout State) -> MemoryUSBAnswer? {
        if state.isHalted { return .stall }
        if let data = state.reply {
            guard !data.isEmpty else {
                state.reply = nil
                state.isHalted = true
                return .stall
            }
            let part = Array(data.prefix(count))
            let isLast = data.count <= count
            state.reply = isLast ? nil : Array(data[part.count...])
            return .bytes(part)
        }
        guard state.statusDue else { return nil }
        state.statusDue = false
        return .bytes(Array("USBS".utf8) + state.tag + [0, 0, 0, 0, state.status])
    }

    private func take(_ block: [UInt8], _ state: inout State) {
        guard block.count == 31 else { return }
        state.tag = Array(block[4..<8])
        state.status = 0
        state.statusDue = true
        let command = Array(block[15...])
        let place = command[2..<6].reduce(0) { $0 << 8 | Int($1) } * 512
        let count = (Int(command[7]) << 8 | Int(command[8])) * 512
        switch command[0] {
        case 0x12: state.reply = [0, 0x80, 2, 2, 31, 0, 0, 0] + Array("Memory  Stick           0001".utf8)
        case 0x25:
            let last = state.blocks.count / 512 - 1
            state.reply = [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: last >> $0) } + [0, 0, 2, 0]
        case 0x28 where place + count <= state.blocks.count:
            state.reply = Array(state.blocks[place..<place + count - short])
        case 0x2A where place + count <= state.blocks.count: state.toWrite = (place, count)
        case 0x35: break
        default:
            // Nothing to send: the device stalls, and says so in its status.
            state.reply = []
            state.status = 1
        }
    }
}

/// A keyboard that reports what the test types.
final class MemoryKeyboard: MemoryUSBDevice {
    let speed = USBIFSpeed.low
    let device = makeDescriptors("12 01 1001 00 00 00 08 6D04 1CC3 0001 01 02 00 01")
    let configuration = makeConfiguration(
        1,
        "09 04 00 00 01 03 01 01 00  09 21 1101 00 01 22 3F00  07 05 81 03 0800 0A"
    )
    private let reports = Mutex<[[UInt8]]>([])
    let lights = Mutex<UInt8>(0)

    func press(_ usage: UInt8, modifiers: UInt8 = 0) {
        reports.withLock { $0 += [[modifiers, 0, usage, 0, 0, 0, 0, 0], [UInt8](repeating: 0, count: 8)] }
    }

    func control(_ setup: SetupPacket, _ data: [UInt8]) -> MemoryUSBAnswer {
        guard setup.requestType == 0x21, setup.request == 9, data.count == 1 else { return .stall }
        lights.withLock { $0 = data[0] }
        return .okay
    }

    func transfer(_ endpoint: USBEndpointAddress, _ data: [UInt8], count: Int) -> MemoryUSBAnswer? {
        reports.withLock { $0.isEmpty ? nil : .bytes($0.removeFirst()) }
    }
}

/// A microphone (endpoint 1 IN) and a loudspeaker (2 OUT) of 192 bytes a packet, both of samples that count on.
final class MemorySound: MemoryUSBDevice {
    let speed = USBIFSpeed.full
    let device = makeDescriptors("12 01 1001 00 00 00 08 8C0D 1400 0001 00 00 00 01")
    let configuration = makeConfiguration(
        2,
        """
        09 04 00 00 00 01 02 00 00  09 04 00 01 01 01 02 00 00  09 05 81 05 C000 01 00 00
        09 04 01 00 00 01 02 00 00  09 04 01 01 01 01 02 00 00  09 05 02 09 C000 01 00 00
        """
    )
    private struct State {
        var next: UInt32 = 1000
        var packets = 0
        var heard: UInt32?
    }
    private let state = Mutex(State())
    /// The microphone loses one packet of so many, and fails at the one behind it.
    let losesOneOf: Int
    let gaps = Mutex(0)
    let selected = Mutex<[UInt8: UInt8]>([:])

    init(losesOneOf: Int = .max) { self.losesOneOf = losesOneOf }

    func control(_ setup: SetupPacket, _ data: [UInt8]) -> MemoryUSBAnswer {
        guard case .setInterface(let number, let alternate) = USBControlRequest(setup) else { return .stall }
        selected.withLock { $0[number] = alternate }
        return .okay
    }

    func transfer(_ endpoint: USBEndpointAddress, _ data: [UInt8], count: Int) -> MemoryUSBAnswer? {
        state.withLock { state in
            if endpoint.direction == .in {
                state.packets += 1
                let first = state.next
                if state.packets % losesOneOf == 0 { state.next &+= 48 }
                if state.packets % losesOneOf == 1, state.packets > 1 { return MemoryUSBAnswer(status: .ioError) }
                defer { state.next &+= 48 }
                return .bytes((0..<48).flatMap { bytes((state.packets % losesOneOf == 0 ? state.next : first) &+ $0) })
            }
            for place in stride(from: 0, to: data.count, by: 4) {
                let sample = (0..<4).reduce(0 as UInt32) { $0 | UInt32(data[place + $1]) << UInt32(8 * $1) }
                if let heard = state.heard, heard &+ 1 != sample { gaps.withLock { $0 += 1 } }
                state.heard = sample
            }
            return .okay
        }
    }

    private func bytes(_ sample: UInt32) -> [UInt8] { [0, 8, 16, 24].map { UInt8(truncatingIfNeeded: sample >> $0) } }
}

/// A device of one bulk endpoint in each direction that gives back what it was sent.
final class MemoryLoopback: MemoryUSBDevice {
    let speed = USBIFSpeed.high
    let device = makeDescriptors("12 01 0002 FF 00 00 40 2505 A4A0 0001 00 00 00 01")
    let configuration = makeConfiguration(
        1,
        "09 04 00 00 02 FF 00 00 00  07 05 81 02 0002 00  07 05 01 02 0002 00"
    )
    private let waiting = Mutex<[[UInt8]]>([])

    func control(_ setup: SetupPacket, _ data: [UInt8]) -> MemoryUSBAnswer {
        switch (setup.requestType, setup.request) {
        case (0xC0, 0x5B): .bytes((0..<setup.length).map { UInt8(truncatingIfNeeded: $0) })
        case (0x40, 0x5B): .okay
        default: .stall
        }
    }

    func transfer(_ endpoint: USBEndpointAddress, _ data: [UInt8], count: Int) -> MemoryUSBAnswer? {
        waiting.withLock { waiting in
            if endpoint.direction == .out {
                waiting.append(data)
                return .okay
            }
            return waiting.isEmpty ? nil : .bytes(waiting.removeFirst())
        }
    }
}
