// USB through the whole service as processes: controllers made, filled and taken away by the commands' verbs, while a
// guest uses the devices.

import ControlProtocol
import FrontendDrivers
import HostIO
import Hypervisor
import SharedRing
import SimulatedHypervisor
import SystemPackage
import Testing
import XenWire

@testable import BackendServer

#if canImport(Glibc)
    import Glibc
#endif

/// A domain with a controller that was made through the control socket, and its driver.
private struct USBGuest {
    let domain: DomainID
    let frontend: USBFrontend

    init(_ services: Services, _ number: UInt16, _ line: String) async throws {
        domain = try #require(DomainID(number))
        try services.host.machine.createDomain(domain)
        frontend = USBFrontend(try services.host.machine.hypervisor(for: domain), loop: services.host.loop, index: 0)
        async let made = services.call(USBControllerCreate(domain: "\(number)", controller: line))
        try await eventually("the guest's nodes") {
            try await services.host.dom0.store.read("/local/domain/\(number)/device/vusb/0/backend") != nil
        }
        try await frontend.connect(within: .seconds(30))
        #expect(try await made.device.path == "backend/vusb/\(number)/0")
    }

    func device(_ port: Int) async throws -> USBGuestDevice {
        try await frontend.enumerate(try #require(USBPort(port)), within: .seconds(30))
    }

    func speed(_ port: Int) async throws -> USBIFSpeed { await frontend.speed(of: try #require(USBPort(port))) }
}

extension Services {
    /// Plugs a device into the simulated bus, or pulls it out.
    fileprivate func plug(_ address: String, _ text: String?) throws {
        try Files.makeDirectory(bus, permissions: .ownerReadWriteExecute)
        guard let text else { return try Files.remove(bus.appending(address)) }
        let file = try FileDescriptor.open(
            bus.appending(address),
            .writeOnly,
            options: [.create, .exclusiveCreate],
            permissions: .ownerReadWrite
        )
        try file.closeAfter { _ = try file.writeAll(text.utf8) }
    }

    /// A stick with a number in each block of 512 bytes.
    fileprivate func plugStick(_ address: String, blocks: Int) throws {
        let image = try makeImage("stick-\(address)", megabytes: 0)
        let file = try FileDescriptor.open(image, .readWrite)
        try file.closeAfter {
            try file.resize(to: Int64(blocks) * 512)
            let pages = try PrivatePages(byteCount: blocks * 512, file: file)
            for block in 0..<blocks { pages.write(stickBlock(block), at: block * 512) }
        }
        try plug(address, "disk \(image)")
    }

    fileprivate func usbText(_ domain: DomainID) async throws -> String {
        let text = try await call(USBList(domain: "\(domain)")).text
        return text.split(separator: "\n").dropFirst(2).joined(separator: "\n")
    }
}

private func stickBlock(_ block: Int) -> [UInt8] {
    (0..<512).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ block &* 13 &+ block >> 8) }
}

extension ServiceTests {
    @Test func aStickGoesIntoAPortAndBackToTheHost() async throws {
        let services = try Services()
        try services.plugStick("1-1", blocks: 256)
        try services.plug("1-2", "hub")
        try services.plug("1-2.3", "keyboard /nonexistent")
        let guest = try await USBGuest(services, 1, "usbver=2, numports=3")
        #expect(try await services.call(USBListAssignable()).devices.map(\.bus) == ["1-1", "1-2.3"])
        #expect(try await services.usbText(guest.domain) == "port 1:\nport 2:\nport 3:")
        let reply = try await services.call(USBAttach(domain: "1", device: "0", port: 2, bus: "1-1"))
        #expect(reply.port.device?.vendor == 0x0781 && reply.port.device?.bus == "1-1")
        let stick = try USBMassStorage(try await guest.device(2))
        #expect(try await stick.capacity().blockCount == 256)
        #expect(try await stick.read(block: 77, count: 2) == stickBlock(77) + stickBlock(78))
        #expect(try await services.usbText(guest.domain).contains("port 2: 1-1 [ID 0781:5581 xenback Simulated disk]"))
        #expect(try await services.call(USBListAssignable()).devices.map(\.bus) == ["1-2.3"])
        // One tries the other's.
        let other = try await USBGuest(services, 2, "usbver=2, numports=1, port_1=1-2.3")
        let stolen = await #expect(throws: ControlError.self) {
            try await services.call(USBAttach(domain: "2", device: "0", port: 1, bus: "1-1"))
        }
        #expect(stolen?.description.contains("has 1-2.3 already; first: xenback usb-detach 2 0 1") ?? false)
        _ = try await services.call(USBDetach(domain: "2", device: "0", port: 1))
        let taken = await #expect(throws: ControlError.self) {
            try await services.call(USBAttach(domain: "2", device: "0", port: 1, bus: "1-1"))
        }
        #expect(taken?.description.contains("is in port 2 of USB controller 0 of domain 1; first: ") ?? false)
        #expect(try await other.speed(1) == .none)
        // And back.
        _ = try await services.call(USBDetach(domain: "1", device: "vusb/0", port: 2))
        try await guest.frontend.waitForDevice(on: try #require(USBPort(2)), present: false)
        let moved = try await services.call(USBAttach(domain: "2", device: "0", port: 1, bus: "1-1"))
        #expect(moved.port.device?.bus == "1-1")
        let again = try USBMassStorage(try await other.device(1))
        #expect(try await again.read(block: 255, count: 1) == stickBlock(255))
        // The controller goes with what is in it.
        async let closed: Void = other.frontend.close()
        _ = try await services.call(USBControllerDestroy(domain: "2", device: "0"))
        try? await closed
        #expect(try await services.host.dom0.store.directory("backend/vusb/2/0") == nil)
        try await eventually("the host has it back") {
            try await services.call(USBListAssignable()).devices.map(\.bus) == ["1-1", "1-2.3"]
        }
        await guest.frontend.abandon()
        await services.end()
    }

    @Test func aDeviceFindsItsGuestByRule() async throws {
        let services = try Services()
        let guest = try await USBGuest(services, 1, "usbver=2, numports=2")
        let waiting = try await services.call(USBAttach(domain: "1", device: "0", port: 1, bus: "0781:5581"))
        #expect(waiting.port.device == nil && waiting.port.wanted == "0781:5581")
        #expect(try await services.usbText(guest.domain) == "port 1: 0781:5581 [not there]\nport 2:")
        let port = try #require(USBPort(1))
        for address in ["1-1", "3-1.5", "1-1"] {
            try services.plugStick(address, blocks: 64)
            let stick = try USBMassStorage(try await guest.device(1))
            #expect(try await stick.read(block: 9, count: 1) == stickBlock(9))
            let text = try await services.usbText(guest.domain)
            #expect(
                text.hasPrefix("port 1: \(address) [ID 0781:5581 xenback Simulated disk] by 0781:5581\n"),
                "\(text)"
            )
            #expect(try await services.call(USBListAssignable()).devices.isEmpty)
            try services.plug(address, nil)
            try await guest.frontend.waitForDevice(on: port, present: false, within: .seconds(30))
        }
        await guest.frontend.abandon()
        await services.end()
    }

    @Test func aKilledWorkersDevicesAreFoundAgain() async throws {
        let services = try Services()
        try services.plugStick("1-1", blocks: 1024)
        let guest = try await USBGuest(services, 1, "usbver=2, numports=1, port_1=1-1")
        let device = try await guest.device(1)
        let stick = try USBMassStorage(device)
        for round in 0..<3 {
            let worker = try #require(services.worker(of: guest.domain))
            let reading = Task {
                var (block, errors) = (0, [] as [any Error])
                while block < 1024 {
                    do {
                        let bytes = try await stick.read(block: UInt32(block), count: 16)
                        try #require(bytes == (block..<block + 16).flatMap(stickBlock), "block \(block)")
                        block += 16
                    } catch let error where error is USBMassStorage.Failure || error is FrontendFailure {
                        // What a killed worker had in flight ends with an error that drivers begin again after, and never
                        // with fewer bytes than there are.
                        if case .short? = error as? USBMassStorage.Failure { Issue.record(error) }
                        errors.append(error)
                        try #require(errors.count < 20, "\(errors)")
                        _ = try? await device.control(SetupPacket(0x21, 0xFF, value: 0, index: 0))
                        for direction in [USBDirection.in, .out] {
                            guard let (_, endpoint) = device.endpoint(.bulk, direction) else { continue }
                            try? await device.clearHalt(endpoint)
                        }
                    }
                }
                return errors
            }
            try await Task.sleep(for: .milliseconds(30))
            kill(worker, SIGKILL)
            try await eventually("a successor", within: .seconds(30)) {
                services.worker(of: guest.domain).map { $0 != worker } ?? false
            }
            print("round \(round): commands begun again after \(try await reading.value)")
            // The port never was empty.
            #expect(try await guest.speed(1) == .high)
        }
        #expect(try await services.host.state(DevicePath(kind: .vusb, domain: guest.domain, index: 0)) == .connected)
        // The last successor may still be looking for it.
        try await eventually("the stick is in its port") {
            try await services.usbText(guest.domain).hasPrefix("port 1: 1-1 [ID")
        }
        await guest.frontend.abandon()
        await services.end()
    }
}
