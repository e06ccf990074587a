// A USB device as a guest sees it: enumerated, configured, spoken to by endpoint.

public import XenWire

/// A device at a port of a frontend, with an address and a configuration.
public struct USBGuestDevice: Sendable {
    public let frontend: USBFrontend
    public let port: USBPort
    public let speed: USBIFSpeed
    public let address: UInt8
    public let descriptor: USBDeviceDescriptor
    public let configuration: USBConfiguration
    /// The device descriptor and the configuration as they came.
    public let deviceBytes: [UInt8]
    public let configurationBytes: [UInt8]

    /// The pipe of one of its endpoints.
    public func pipe(_ endpoint: USBEndpoint) -> USBPipe {
        USBPipe(port, endpoint.type, device: address, endpoint: endpoint.address.number, endpoint.address.direction)
    }

    /// The first endpoint of this type and direction in any of the current or other settings of the configuration.
    public func endpoint(
        _ type: USBTransferType,
        _ direction: USBDirection
    ) -> (interface: USBInterface, endpoint: USBEndpoint)? {
        for interface in configuration.interfaces {
            if let found = interface.endpoints.first(where: { $0.type == type && $0.address.direction == direction }) {
                return (interface, found)
            }
        }
        return nil
    }

    /// A control request to endpoint 0.
    /// - Parameter bytes: data to send; their number is the setup packet's `length` then.
    /// - Returns: data received.
    /// - Throws: `urb` if it was answered with anything but `okay`.
    @discardableResult
    public func control(_ setup: SetupPacket, _ bytes: [UInt8] = []) async throws(FrontendFailure) -> [UInt8] {
        try await frontend.control(port, address, setup, bytes)
    }

    /// SET_INTERFACE
    public func select(_ interface: UInt8, alternate: UInt8) async throws(FrontendFailure) {
        try await control(SetupPacket(0x01, 11, value: UInt16(alternate), index: UInt16(interface)))
    }

    /// CLEAR_FEATURE(ENDPOINT_HALT)
    public func clearHalt(_ endpoint: USBEndpoint) async throws(FrontendFailure) {
        try await control(SetupPacket(0x02, 1, value: 0, index: UInt16(endpoint.address.rawValue)))
    }

    /// GET_DESCRIPTOR of the device, at most `length` bytes of it.
    public func read(
        _ type: USBDescriptorType,
        index: UInt8 = 0,
        language: UInt16 = 0,
        length: UInt16 = 255
    ) async throws(FrontendFailure) -> [UInt8] {
        try await control(USBFrontend.getDescriptor(type, index: index, language: language, length: length))
    }

    /// Sends data to a bulk or interrupt endpoint, in URBs of 64 KiB.
    /// - Throws: `urb` for the first that was not answered `okay`.
    public func send(_ bytes: [UInt8], to endpoint: USBEndpoint) async throws(FrontendFailure) {
        var tickets: [URBTicket] = []
        for start in stride(from: 0, to: max(1, bytes.count), by: USBWire.maxBytes) {
            let part = Array(bytes[start..<min(bytes.count, start + USBWire.maxBytes)])
            let urb = FrontURB(pipe(endpoint), kind(endpoint), byteCount: part.count)
            tickets.append(try await frontend.submit(urb, part))
            if tickets.count == USBGuestDevice.depth { try await reapOldest(&tickets) }
        }
        while !tickets.isEmpty { try await reapOldest(&tickets) }
    }

    /// Receives from a bulk or interrupt endpoint, in URBs of 64 KiB as usbcore's scatter-gather makes them: a short one
    /// is the last, and what was asked for behind it is taken back.
    /// - Returns: at most `count` bytes.
    /// - Throws: `urb` for the first that was not answered `okay`.
    public func receive(_ count: Int, from endpoint: USBEndpoint) async throws(FrontendFailure) -> [UInt8] {
        var received: [UInt8] = []
        var asked = 0
        var tickets: [(ticket: URBTicket, count: Int)] = []
        var status = URBStatus.okay
        var isShort = false
        while asked < count || !tickets.isEmpty {
            if asked < count, tickets.count < USBGuestDevice.depth, !isShort {
                let part = min(count - asked, USBWire.maxBytes)
                asked += part
                let urb = FrontURB(pipe(endpoint), kind(endpoint), byteCount: part, shortNotOK: asked < count)
                tickets.append((try await frontend.submit(urb), part))
                continue
            }
            guard !tickets.isEmpty else { break }
            let (ticket, part) = tickets.removeFirst()
            if isShort { try await frontend.unlink(ticket) }
            let outcome = try await frontend.outcome(of: ticket)
            if isShort { continue }
            received += outcome.bytes
            status = outcome.status
            isShort = status != .okay || outcome.bytes.count < part
        }
        guard status == .okay else { throw .urb(status) }
        return received
    }

    // Fewer than the ring has, so that unlinks find a place.
    private static let depth = 8

    private func kind(_ endpoint: USBEndpoint) -> FrontURB.Kind {
        endpoint.type == .interrupt ? .interrupt(interval: UInt16(endpoint.interval)) : .bulk
    }

    /// Awaits the oldest; if it failed, takes back and awaits all others.
    private func reapOldest(_ tickets: inout [URBTicket]) async throws(FrontendFailure) {
        let status = try await frontend.outcome(of: tickets.removeFirst()).status
        guard status != .okay else { return }
        for ticket in tickets {
            try await frontend.unlink(ticket)
            _ = try await frontend.outcome(of: ticket)
        }
        tickets = []
        throw .urb(status)
    }
}

extension USBFrontend {
    /// What Linux's hub driver does with a device that appeared (drivers/usb/core/hub.c, `hub_port_init`): 64 bytes of
    /// the device descriptor at address 0, SET_ADDRESS, the descriptors, SET_CONFIGURATION. The port's reset before it is
    /// the root hub's own affair; the backend sees a request to address 0.
    /// - Throws: `closed` if nothing is plugged in within `limit`; `urb` for a request that failed.
    public func enumerate(
        _ port: USBPort,
        configuration index: UInt8 = 0,
        within limit: Duration = .seconds(10)
    ) async throws(FrontendFailure) -> USBGuestDevice {
        let speed = try await waitForDevice(on: port, within: limit)
        let first = try await control(port, 0, USBFrontend.getDescriptor(.device, length: 64))
        guard first.count >= 8 else { throw .device("sent \(first.count) bytes of its descriptor") }
        let address = nextAddress
        nextAddress = address == 127 ? 1 : address + 1
        try await control(port, 0, SetupPacket(0x00, 5, value: UInt16(address)))
        let bytes = try await control(port, address, USBFrontend.getDescriptor(.device, length: 18))
        let head = try await control(port, address, USBFrontend.getDescriptor(.configuration, index: index, length: 9))
        guard let device = USBDeviceDescriptor(bytes), head.count == 9 else { throw .device("has no descriptors") }
        let length = UInt16(head[2]) | UInt16(head[3]) << 8
        let all = try await control(
            port,
            address,
            USBFrontend.getDescriptor(.configuration, index: index, length: length)
        )
        guard let configuration = USBConfiguration(all) else { throw .device("has no configuration") }
        try await control(port, address, SetupPacket(0x00, 9, value: UInt16(configuration.value)))
        return USBGuestDevice(
            frontend: self,
            port: port,
            speed: speed,
            address: address,
            descriptor: device,
            configuration: configuration,
            deviceBytes: bytes,
            configurationBytes: all
        )
    }

    /// A control request to endpoint 0 of any address.
    /// - Returns: data received.
    /// - Throws: `urb` if it was answered with anything but `okay`.
    @discardableResult
    public func control(
        _ port: USBPort,
        _ address: UInt8,
        _ setup: SetupPacket,
        _ bytes: [UInt8] = []
    ) async throws(FrontendFailure) -> [UInt8] {
        var setup = setup
        if !bytes.isEmpty { setup.length = UInt16(bytes.count) }
        // usbcore's pipes without data are OUT.
        let direction = setup.length == 0 ? USBDirection.out : setup.direction
        let pipe = USBPipe(port, .control, device: address, direction)
        let outcome = try await perform(FrontURB(pipe, .control(setup), byteCount: Int(setup.length)), bytes)
        guard outcome.status == .okay else { throw .urb(outcome.status) }
        return outcome.bytes
    }

    static func getDescriptor(
        _ type: USBDescriptorType,
        index: UInt8 = 0,
        language: UInt16 = 0,
        length: UInt16
    ) -> SetupPacket {
        SetupPacket(0x80, 6, value: UInt16(type.rawValue) << 8 | UInt16(index), index: language, length: length)
    }
}
