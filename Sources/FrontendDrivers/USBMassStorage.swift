// usb-storage in Swift: a disk behind bulk-only transport, read and written by block.

internal import XenWire

/// A guest's driver for one logical unit (USB Mass Storage Class, Bulk-Only Transport 1.0; SCSI block commands). One
/// command at a time: callers wait for each other.
public actor USBMassStorage {
    /// Why a command did not succeed.
    public enum Failure: Error, Sendable, Hashable {
        /// No interface with mass storage over bulk-only transport.
        case noInterface
        /// The command's status: 1 for failed, 2 for a phase error.
        case command(operation: UInt8, status: UInt8)
        /// The status block is not one, or not of this command.
        case status([UInt8])
        /// The endpoint was halted where the status was to come, and again after that was cleared: the device knows of no
        /// command, as one that was reset meanwhile.
        case noCommand
        /// Fewer bytes than the command has.
        case short(operation: UInt8, Int)
    }

    public nonisolated let device: USBGuestDevice
    private let input: USBEndpoint
    private let output: USBEndpoint
    private var tag: UInt32 = 0
    private var isBusy = false
    private var waiting: [CheckedContinuation<Void, Never>] = []

    /// - Throws: `noInterface`.
    public init(_ device: USBGuestDevice) throws(Failure) {
        let interface = device.configuration.interfaces.first { interface in
            interface.interfaceClass == 8 && interface.protocol == 0x50
        }
        guard
            let input = interface?.endpoints.first(where: { $0.type == .bulk && $0.address.direction == .in }),
            let output = interface?.endpoints.first(where: { $0.type == .bulk && $0.address.direction == .out })
        else { throw .noInterface }
        self.device = device
        self.input = input
        self.output = output
    }

    /// Vendor and product, blanks at the end cut off.
    public func inquiry() async throws -> (vendor: String, product: String) {
        let bytes = try await read(36, [0x12, 0, 0, 0, 36, 0])
        return (text(bytes[8..<16]), text(bytes[16..<32]))
    }

    /// Blocks, and bytes of each.
    public func capacity() async throws -> (blockCount: UInt64, blockSize: Int) {
        let bytes = try await read(8, [0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        return (UInt64(number(bytes[..<4])) + 1, Int(number(bytes[4..<8])))
    }

    /// READ(10) of `count` blocks of `blockSize` bytes.
    public func read(block: UInt32, count: UInt16, blockSize: Int = 512) async throws -> [UInt8] {
        try await read(Int(count) * blockSize, command(0x28, block, count))
    }

    /// WRITE(10)
    public func write(block: UInt32, _ bytes: [UInt8], blockSize: Int = 512) async throws {
        try await transact(command(0x2A, block, UInt16(bytes.count / blockSize)), bytes, expecting: 0)
    }

    /// SYNCHRONIZE CACHE(10)
    public func flush() async throws { try await transact([0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0], [], expecting: 0) }

    // MARK: transport

    private func read(_ count: Int, _ command: [UInt8]) async throws -> [UInt8] {
        let bytes = try await transact(command, [], expecting: count)
        guard bytes.count == count else { throw Failure.short(operation: command[0], bytes.count) }
        return bytes
    }

    /// Command block, data, status (5.1, 5.2); a stalled data phase is followed by the status all the same (6.7).
    @discardableResult
    private func transact(_ command: [UInt8], _ out: [UInt8], expecting count: Int) async throws -> [UInt8] {
        await begin()
        defer { end() }
        tag &+= 1
        try await device.send(block(command, count: max(count, out.count), isIn: count > 0), to: output)
        var bytes: [UInt8] = []
        if count > 0 { bytes = try await receive(count) ?? [] }
        if !out.isEmpty { try await send(out) }
        let status = try await status()
        guard status == 0 else { throw Failure.command(operation: command[0], status: status) }
        return bytes
    }

    private func status() async throws -> UInt8 {
        var received = try await receive(13)
        if received == nil { received = try await receive(13) }
        guard let bytes = received else { throw Failure.noCommand }
        guard bytes.count == 13, Array(bytes[..<4]) == Array("USBS".utf8), little(bytes[4..<8]) == tag else {
            throw Failure.status(bytes)
        }
        return bytes[12]
    }

    /// - Returns: nil if the endpoint was halted, which it is no longer.
    private func receive(_ count: Int) async throws(FrontendFailure) -> [UInt8]? {
        do throws(FrontendFailure) { return try await device.receive(count, from: input) } catch {
            guard isStall(error) else { throw error }
        }
        try await device.clearHalt(input)
        return nil
    }

    /// A device that does not want the data halts the endpoint, and says why in its status.
    private func send(_ bytes: [UInt8]) async throws(FrontendFailure) {
        do throws(FrontendFailure) { return try await device.send(bytes, to: output) } catch {
            guard isStall(error) else { throw error }
        }
        try await device.clearHalt(output)
    }

    private func isStall(_ failure: FrontendFailure) -> Bool {
        if case .urb(let status) = failure { status == .stall } else { false }
    }

    private func block(_ command: [UInt8], count: Int, isIn: Bool) -> [UInt8] {
        var bytes = Array("USBC".utf8)
        for word in [tag, UInt32(count)] {
            for shift in [0, 8, 16, 24] as [UInt32] { bytes.append(UInt8(truncatingIfNeeded: word >> shift)) }
        }
        bytes += [isIn ? 0x80 : 0, 0, UInt8(command.count)] + command
        return bytes + [UInt8](repeating: 0, count: 31 - bytes.count)
    }

    private func command(_ operation: UInt8, _ block: UInt32, _ count: UInt16) -> [UInt8] {
        let place = [24, 16, 8, 0].map { UInt8(truncatingIfNeeded: block >> $0) }
        return [operation, 0] + place + [0, UInt8(count >> 8), UInt8(truncatingIfNeeded: count), 0]
    }

    private func begin() async {
        if !isBusy {
            isBusy = true
            return
        }
        await withCheckedContinuation { continuation in
            if isBusy {
                waiting.append(continuation)
            } else {
                isBusy = true
                continuation.resume()
            }
        }
    }

    private func end() {
        if waiting.isEmpty { isBusy = false } else { waiting.removeFirst().resume() }
    }

    private func number(_ bytes: ArraySlice<UInt8>) -> UInt32 { bytes.reduce(0) { $0 << 8 | UInt32($1) } }
    private func little(_ bytes: ArraySlice<UInt8>) -> UInt32 { bytes.reversed().reduce(0) { $0 << 8 | UInt32($1) } }
    private func text(_ bytes: ArraySlice<UInt8>) -> String {
        let characters = bytes.map { Character(UnicodeScalar($0)) }
        return String(characters.prefix(1 + (characters.lastIndex { $0 != " " } ?? -1)))
    }
}
