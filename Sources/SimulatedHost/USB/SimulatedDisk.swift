// A flash disk: SCSI commands over bulk-only transport, on memory or on a mapped file.

public import HostUSB
public import SharedRing
internal import Synchronization

/// A USB flash disk (USB Mass Storage Class, Bulk-Only Transport 1.0), with blocks of 512 bytes.
///
/// A read that fails, or has nothing to send, halts the endpoint, so that no transfer of it ever succeeds without
/// bytes. The current command survives a change of owner.
///
/// It has one logical unit and supports the commands that Linux and Windows use. It does not check whether a command's
/// direction is that of its wrapper, has no write protection, and forgets its sense data with the next command.
public final class SimulatedDisk: SimulatedFunction {
    static let blockBytes = 512
    static let input: UInt8 = 0x81
    static let output: UInt8 = 0x02

    /// What the disk does next (5.3).
    enum Phase: Equatable {
        /// Waits for a command wrapper.
        case command
        /// Sends bytes of its answer, or of the medium.
        case dataIn
        /// Takes bytes for the medium, or discards them.
        case dataOut
        /// Sends a status wrapper.
        case status
        /// Wants a reset recovery (6.6.1).
        case wrecked
    }

    /// The command that is being carried out.
    struct Command {
        var phase = Phase.command
        var tag: UInt32 = 0
        /// Bytes that the host wants to move, and those that it has not moved yet.
        var hostCount = 0
        var hostLeft = 0
        /// The answer, unless it comes from the medium.
        var reply: [UInt8] = []
        var isMedium = false
        /// Where the next byte is, in the reply or in the medium, and how many there are to move.
        var position = 0
        var left = 0
        var hasFailed = false
        /// Sense key and additional sense code of the last failure.
        var sense: (key: UInt8, code: UInt8) = (0, 0)
    }

    public let strings: SimulatedStrings
    public let speed: USBSpeed
    public let descriptors: USBDescriptors
    /// The medium.
    let pages: PrivatePages
    let blockCount: Int
    /// Bytes of a full bulk packet.
    private let packetBytes: Int
    private let command = Mutex(Command())

    /// - Parameters:
    ///   - pages: the medium; a file's, if it was mapped.
    ///   - speed: `.super` gives it the descriptors of a SuperSpeed device, with companions.
    public init(
        _ pages: PrivatePages,
        speed: USBSpeed = .high,
        vendor: UInt16 = 0x0781,
        product: UInt16 = 0x5581,
        serial: String? = "4C530001"
    ) {
        self.pages = pages
        self.speed = speed
        blockCount = pages.byteCount / SimulatedDisk.blockBytes
        strings = SimulatedStrings(product: "Simulated disk", serial: serial)
        let packet: UInt16 = speed == .super ? 1024 : speed == .high ? 512 : 64
        packetBytes = Int(packet)
        let burst: UInt8? = speed == .super ? 15 : nil
        let body =
            SimulatedDescriptors.interface(0, endpoints: 2, (0x08, 0x06, 0x50))
            + SimulatedDescriptors.endpoint(SimulatedDisk.input, attributes: 2, packetSize: packet, burst: burst)
            + SimulatedDescriptors.endpoint(SimulatedDisk.output, attributes: 2, packetSize: packet, burst: burst)
        descriptors = USBDescriptors(
            device: SimulatedDescriptors.device(speed, vendor: vendor, product: product, hasSerial: serial != nil),
            configurations: [SimulatedDescriptors.configuration(interfaces: 1, body)]
        )
    }

    public func control(_ setup: USBSetup, _ data: SimulatedBytes) -> SimulatedAnswer {
        switch (setup.requestType, setup.request) {
        case (0x21, 0xff):
            restart(endpoint: nil)
            return .moved(0)
        case (0xa1, 0xfe): return data.fill([0])
        default: return .stall
        }
    }

    public func transfer(endpoint: UInt8, _ data: SimulatedBytes) -> SimulatedAnswer {
        command.withLock { command in
            switch (command.phase, endpoint) {
            case (.command, SimulatedDisk.output): return begin(&command, data)
            case (.dataIn, SimulatedDisk.input): return send(&command, data)
            case (.dataOut, SimulatedDisk.output): return receive(&command, data)
            case (.status, SimulatedDisk.input): return sendStatus(&command, data)
            case (.wrecked, _): return .stall
            default: return .wait
            }
        }
    }

    public func restart(endpoint: UInt8?) {
        command.withLock { command in
            if endpoint == nil { command = Command() }
        }
    }

    /// Takes a command wrapper (5.1, 6.2).
    private func begin(_ command: inout Command, _ data: SimulatedBytes) -> SimulatedAnswer {
        let wrapper = data.slot
        guard data.count == 31, wrapper.u32(0) == 0x4342_5355, wrapper.u8(13) == 0, (1...16).contains(wrapper.u8(14))
        else {
            command.phase = .wrecked
            return .stall
        }
        let sense = command.sense
        command = Command()
        command.sense = sense
        command.tag = wrapper.u32(4)
        command.hostCount = Int(wrapper.u32(8))
        command.hostLeft = command.hostCount
        carryOut(&command, (0..<16).map { wrapper.u8(15 + $0) })
        command.left = min(command.left, command.hostCount)
        if command.hostCount > 0 {
            command.phase = wrapper.u8(12) & 0x80 != 0 ? .dataIn : .dataOut
        } else {
            command.phase = .status
        }
        return .moved(31)
    }

    private func send(_ command: inout Command, _ data: SimulatedBytes) -> SimulatedAnswer {
        let count = min(data.count, command.left)
        if count == 0, data.count > 0 {
            // Nothing to send, and the host wants something (6.7.2, case 4).
            command.phase = .status
            return .stall
        }
        if command.isMedium {
            data.pages.copy(from: pages, at: command.position, count: count, to: data.offset)
        } else {
            data.pages.write(Array(command.reply[command.position..<command.position + count]), at: data.offset)
        }
        let isCut = command.left > count && count % packetBytes != 0
        advance(&command, count)
        if count < data.count || command.hostLeft == 0 { command.phase = .status }
        return isCut ? .overflowed : .moved(count)
    }

    private func receive(_ command: inout Command, _ data: SimulatedBytes) -> SimulatedAnswer {
        let count = min(data.count, command.left)
        if command.isMedium { pages.copy(from: data.pages, at: data.offset, count: count, to: command.position) }
        advance(&command, count)
        // What is too much is thrown away.
        command.hostLeft -= min(command.hostLeft, data.count - count)
        if command.hostLeft == 0 { command.phase = .status }
        return .moved(data.count)
    }

    private func advance(_ command: inout Command, _ count: Int) {
        command.position += count
        command.left -= count
        command.hostLeft -= count
    }

    /// Sends a status wrapper (5.2).
    private func sendStatus(_ command: inout Command, _ data: SimulatedBytes) -> SimulatedAnswer {
        if data.count < 13 { return .stall }
        let residue = UInt32(truncatingIfNeeded: command.hostLeft)
        let words = [0x5342_5355, command.tag, residue].flatMap { (word: UInt32) in
            (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * UInt32($0))) }
        }
        command.phase = .command
        return data.fill(words + [command.hasFailed ? 1 : 0])
    }
}
