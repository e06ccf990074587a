// A device as its guest sees it: given an address, configured, read and written, as Linux's usbcore and usb-storage do.

internal import FrontendDrivers
internal import HostUSB
internal import Testing
internal import XenWire

/// One device in one port.
struct GuestDevice: Sendable {
    let frontend: USBFrontend
    let port: USBPort
    var address: UInt8

    /// Waits until something is plugged in.
    /// - Parameter address: the one it will be given.
    init(_ frontend: USBFrontend, port: Int, address: UInt8 = 5) async throws {
        self.frontend = frontend
        self.port = USBPort(port)!
        self.address = address
        try await frontend.waitForDevice(on: self.port, within: .seconds(20))
    }

    // MARK: control

    func controlURB(_ setup: SetupPacket, address: UInt8? = nil) -> FrontURB {
        FrontURB(
            USBPipe(port, .control, device: address ?? self.address, setup.length > 0 ? setup.direction : .out),
            .control(setup),
            byteCount: Int(setup.length)
        )
    }

    func control(_ setup: SetupPacket, _ bytes: [UInt8] = [], address: UInt8? = nil) async throws -> URBOutcome {
        try await frontend.perform(controlURB(setup, address: address), bytes)
    }

    func descriptor(_ type: UInt8, length: UInt16, address: UInt8? = nil) async throws -> URBOutcome {
        try await control(
            SetupPacket(0x80, 6, value: UInt16(type) << 8, index: 0, length: length),
            address: address
        )
    }

    /// What Linux does with a new device, and with one it has reset (hub.c, `hub_port_init`).
    func enumerate(configuration: UInt16 = 1) async throws {
        try await enumerateAddress()
        #expect(try await control(SetupPacket(0, 9, value: configuration)).status == .okay)
    }

    func enumerateAddress() async throws {
        #expect(try await descriptor(1, length: 64, address: 0).bytes.count == 18)
        #expect(try await control(SetupPacket(0, 5, value: UInt16(address)), address: 0).status == .okay)
        #expect(try await descriptor(1, length: 18).bytes.count == 18)
    }

    // MARK: a disk (bulk-only transport)

    func bulk(_ direction: USBDirection, _ count: Int, shortNotOK: Bool = false) -> FrontURB {
        let endpoint: UInt8 = direction == .in ? 1 : 2
        return FrontURB(
            USBPipe(port, .bulk, device: address, endpoint: endpoint, direction),
            .bulk,
            byteCount: count,
            shortNotOK: shortNotOK
        )
    }

    static func wrapper(_ command: [UInt8], byteCount: Int, isIn: Bool, tag: UInt8 = 1) -> [UInt8] {
        var bytes: [UInt8] = [0x55, 0x53, 0x42, 0x43, tag, 0, 0, 0]
        bytes += (0..<4).map { UInt8(truncatingIfNeeded: byteCount >> (8 * $0)) }
        bytes += [isIn ? 0x80 : 0, 0, UInt8(command.count)] + command
        return bytes + [UInt8](repeating: 0, count: 31 - bytes.count)
    }

    static func transfer10(_ code: UInt8, block: Int, count: Int) -> [UInt8] {
        let place = (0..<4).map { UInt8(truncatingIfNeeded: block >> (24 - 8 * $0)) }
        return [code, 0] + place + [0, UInt8(truncatingIfNeeded: count >> 8), UInt8(truncatingIfNeeded: count), 0]
    }

    /// Sends a command wrapper.
    func command(_ command: [UInt8], byteCount: Int, isIn: Bool) async throws -> URBStatus {
        let bytes = GuestDevice.wrapper(command, byteCount: byteCount, isIn: isIn)
        return try await frontend.perform(bulk(.out, 31), bytes).status
    }

    /// Sends the command wrapper of a read.
    func asksToRead(block: Int = 0, blocks: Int) async throws -> Bool {
        let command = GuestDevice.transfer10(0x28, block: block, count: blocks)
        return try await self.command(command, byteCount: blocks * 512, isIn: true) == .okay
    }

    /// Takes a status wrapper.
    /// - Returns: bCSWStatus, nil if it is none.
    func commandStatus() async throws -> UInt8? {
        let outcome = try await frontend.perform(bulk(.in, 13))
        return outcome.bytes.count == 13 ? outcome.bytes[12] : nil
    }

    func read(block: Int, count: Int) async throws -> [UInt8] {
        let byteCount = count * 512
        guard try await asksToRead(block: block, blocks: count) else { return [] }
        let data = try await frontend.perform(bulk(.in, byteCount, shortNotOK: true))
        guard data.status == .okay, try await commandStatus() == 0 else { return [] }
        return data.bytes
    }

    func write(block: Int, _ bytes: [UInt8]) async throws -> Bool {
        let command = GuestDevice.transfer10(0x2A, block: block, count: bytes.count / 512)
        guard try await self.command(command, byteCount: bytes.count, isIn: false) == .okay else { return false }
        guard try await frontend.perform(bulk(.out, bytes.count), bytes).status == .okay else { return false }
        return try await commandStatus() == 0
    }

    /// Reset recovery (bulk-only transport, 5.3.4) the way usb-storage does it: the port is reset, which the backend
    /// hears of by what follows.
    func reset() async throws { try await enumerate() }
}
