// Descriptors read and rewritten: a SuperSpeed stick, a camera, a sound card, and garbage.

import Testing
import XenWire

/// Descriptors for tests, from their pictures.
enum SampleDescriptors {
    static func bytes(_ text: String) -> [UInt8] { TestBytes(text).bytes }

    /// USB 3.2, `bMaxPacketSize0` 2⁹, 0781:5581, one configuration.
    static let device = bytes("12 01 2003 00 00 00 09 8107 8155 0001 01 02 03 01")

    /// Sets `wTotalLength` of a configuration.
    static func configuration(_ head: String, _ rest: String) -> [UInt8] {
        var bytes = bytes(head + rest)
        (bytes[2], bytes[3]) = (UInt8(bytes.count & 0xFF), UInt8(bytes.count >> 8))
        return bytes
    }

    /// Mass storage, and USB attached SCSI with streams as setting 1.
    static let stick = configuration(
        "09 02 0000 01 01 00 80 70",
        """
        09 04 00 00 02 08 06 50 00  07 05 81 02 0004 00  06 30 0F 00 0000  07 05 02 02 0004 00  06 30 0F 00 0000
        09 04 00 01 04 08 06 62 00
        07 05 81 02 0004 00  06 30 0F 05 0000  04 24 03 00  07 05 02 02 0004 00  06 30 0F 05 0000  04 24 04 00
        07 05 83 02 0004 00  06 30 0F 05 0000  04 24 02 00  07 05 04 02 0004 00  06 30 00 00 0000  04 24 01 00
        """
    )
    static let highSpeedStick = configuration(
        "09 02 0000 01 01 00 80 FA",
        "09 04 00 00 02 08 06 50 00  07 05 81 02 0002 00  07 05 02 02 0002 00"
    )

    /// A camera's interfaces: control with an interrupt endpoint, streams with four settings.
    static let camera = configuration(
        "09 02 0000 02 01 00 80 10",
        """
        08 0B 00 02 0E 03 00 05  09 04 00 00 01 0E 01 00 05  07 05 85 13 4000 08  06 30 00 00 4000  05 25 03 4000
        09 04 01 00 00 0E 02 00 00
        09 04 01 01 01 0E 02 00 00  07 05 81 05 0004 01  06 30 00 00 0004
        09 04 01 02 01 0E 02 00 00  07 05 81 05 0004 01  06 30 02 00 000C
        09 04 01 03 01 0E 02 00 00  07 05 81 05 0004 01  06 30 0F 02 00C0
        """
    )
    static let highSpeedCamera = configuration(
        "09 02 0000 02 01 00 80 40",
        """
        08 0B 00 02 0E 03 00 05  09 04 00 00 01 0E 01 00 05  07 05 85 03 4000 08  05 25 03 4000
        09 04 01 00 00 0E 02 00 00
        09 04 01 01 01 0E 02 00 00  07 05 81 05 0004 01
        09 04 01 02 01 0E 02 00 00  07 05 81 05 0014 01
        """
    )
}

@Suite struct USBConfigurations {
    @Test func theDevice() throws {
        let device = try #require(USBDeviceDescriptor(SampleDescriptors.device))
        #expect(device.usb == 0x0320 && device.vendor == 0x0781 && device.product == 0x5581 && device.release == 0x0100)
        #expect(device.maxPacket0 == 9 && device.serialNumber == 3 && device.configurationCount == 1 && !device.isHub)
    }

    @Test func interfacesAndEndpoints() throws {
        let configuration = try #require(USBConfiguration(SampleDescriptors.highSpeedCamera))
        #expect(configuration.value == 1 && configuration.interfaces.map(\.number) == [0, 1, 1, 1])
        #expect(configuration.interfaces.map(\.alternate) == [0, 0, 1, 2])
        let streams = try #require(configuration.interface(1, alternate: 2))
        #expect(streams.interfaceClass == 0x0E && streams.subclass == 2 && streams.endpoints.count == 1)
        let endpoint = streams.endpoints[0]
        #expect(endpoint.address == USBEndpointAddress(1, .in) && endpoint.type == .isochronous)
        #expect(endpoint.maxPacket == 1024 && endpoint.transactions == 3 && endpoint.bytesPerInterval == 3072)
        #expect(endpoint.interval == 1)
        let events = try #require(configuration.interface(0, alternate: 0)?.endpoints.first)
        #expect(events.type == .interrupt && events.bytesPerInterval == 64 && events.interval == 8)
        #expect(configuration.interface(2, alternate: 0) == nil)
    }

    /// What lies behind the announced length, or behind a descriptor of length 0, is not there.
    @Test func shortAndGarbledOnes() throws {
        var bytes = SampleDescriptors.highSpeedStick
        bytes[2] = 9
        #expect(try #require(USBConfiguration(bytes)).interfaces.isEmpty)
        bytes[2] = 255
        #expect(try #require(USBConfiguration(bytes)).interfaces.count == 1)
        bytes[18] = 0
        #expect(try #require(USBConfiguration(bytes)).interfaces.first?.endpoints == [])
        bytes[18] = 200
        #expect(try #require(USBConfiguration(bytes)).interfaces.first?.endpoints == [])
        for count in 0..<9 { #expect(USBConfiguration(Array(bytes.prefix(count))) == nil) }
        for count in 0..<18 { #expect(USBDeviceDescriptor(Array(SampleDescriptors.device.prefix(count))) == nil) }
        #expect(USBConfiguration(SampleDescriptors.device) == nil && USBDeviceDescriptor(bytes) == nil)
    }
}

@Suite struct USBHighSpeed {
    @Test func aStick() throws {
        let descriptors = try HighSpeedDescriptors(
            device: SampleDescriptors.device,
            configurations: [SampleDescriptors.stick]
        )
        #expect(
            descriptors.device == SampleDescriptors.bytes("12 01 0002 00 00 00 40 8107 8155 0001 01 02 03 01")
        )
        #expect(descriptors.configurations == [SampleDescriptors.highSpeedStick])
        let removed = try #require(descriptors.removed.first)
        #expect(descriptors.removed.count == 1 && removed.configuration == 0)
        #expect(removed.interface == 0 && removed.alternate == 1)
        #expect(removed.reason == .streams(interface: 0, USBEndpointAddress(1, .in)))
    }

    @Test func aCamera() throws {
        let descriptors = try HighSpeedDescriptors(
            device: SampleDescriptors.device,
            configurations: [SampleDescriptors.camera]
        )
        #expect(descriptors.configurations == [SampleDescriptors.highSpeedCamera])
        #expect(
            descriptors.removed.map(\.reason) == [
                .periodicTooLarge(interface: 1, USBEndpointAddress(1, .in), bytes: 49152)
            ]
        )
    }

    @Test(
        arguments: [
            (192, "C000"), (1, "0100"), (1024, "0004"), (1025, "010A"), (2048, "000C"), (2049, "AB12"), (3072, "0014"),
        ] as [(Int, String)]
    )
    func packetSizes(_ count: Int, _ size: String) throws {
        let word = String(TestBytes([UInt8(count & 0xFF), UInt8(count >> 8)]).bytes.map { hexadecimal($0) }.joined())
        let configuration = SampleDescriptors.configuration(
            "09 02 0000 01 01 00 80 FF",
            "09 04 00 00 01 01 02 00 00  07 05 01 09 0004 04  06 30 02 00 \(word)"
        )
        let descriptors = try HighSpeedDescriptors(device: SampleDescriptors.device, configurations: [configuration])
        #expect(
            descriptors.configurations == [
                SampleDescriptors.configuration(
                    "09 02 0000 01 01 00 80 FA",
                    "09 04 00 00 01 01 02 00 00  07 05 01 09 \(size) 04"
                )
            ]
        )
        let endpoint = USBConfiguration(descriptors.configurations[0])!.interfaces[0].endpoints[0]
        #expect(endpoint.bytesPerInterval >= count && endpoint.bytesPerInterval < count + 3)
    }

    private func hexadecimal(_ byte: UInt8) -> String { (byte < 16 ? "0" : "") + String(byte, radix: 16) }

    /// The bytes of SuperSpeedPlus stand in a descriptor of their own.
    @Test func whereNoSettingFits() {
        let configuration = SampleDescriptors.configuration(
            "09 02 0000 01 01 00 80 FF",
            """
            09 04 00 00 00 01 02 00 00
            09 04 00 01 01 01 02 00 00  07 05 01 09 0004 01  06 30 0F 80 0100  08 31 0000 010C0000
            """
        )
        #expect(throws: USBDescriptorFault.periodicTooLarge(interface: 0, USBEndpointAddress(1, .out), bytes: 3073)) {
            _ = try HighSpeedDescriptors(device: SampleDescriptors.device, configurations: [configuration])
        }
    }

    /// A device begins in setting 0, so that one cannot be left out.
    @Test(arguments: ["", "09 04 03 01 01 08 06 50 00  07 05 02 02 0004 00  06 30 0F 00 0000"])
    func whereTheFirstSettingNeedsStreams(_ other: String) {
        let configuration = SampleDescriptors.configuration(
            "09 02 0000 01 01 00 80 FF",
            "09 04 03 00 01 08 06 62 00  07 05 02 02 0004 00  06 30 0F 01 0000" + other
        )
        #expect(throws: USBDescriptorFault.streams(interface: 3, USBEndpointAddress(2, .out))) {
            _ = try HighSpeedDescriptors(device: SampleDescriptors.device, configurations: [configuration])
        }
    }

    @Test func whatIsNoDescriptor() {
        #expect(throws: USBDescriptorFault.device) { _ = try HighSpeedDescriptors(device: [], configurations: []) }
        #expect(throws: USBDescriptorFault.configuration(1)) {
            _ = try HighSpeedDescriptors(
                device: SampleDescriptors.device,
                configurations: [SampleDescriptors.stick, [9, 2, 0]]
            )
        }
    }

    /// A guest reads nine bytes, then as many as they say.
    @Test func answers() throws {
        let descriptors = try HighSpeedDescriptors(
            device: SampleDescriptors.device,
            configurations: [SampleDescriptors.stick]
        )
        let stick = SampleDescriptors.highSpeedStick
        #expect(descriptors.answer(to: .configuration, index: 0, length: 9) == .bytes(Array(stick[..<9])))
        #expect(descriptors.answer(to: .configuration, index: 0, length: UInt16(stick.count)) == .bytes(stick))
        #expect(descriptors.answer(to: .configuration, index: 0, length: .max) == .bytes(stick))
        #expect(descriptors.answer(to: .configuration, index: 0, length: 0) == .bytes([]))
        #expect(descriptors.answer(to: .configuration, index: 1, length: 9) == .stall)
        #expect(descriptors.answer(to: .device, index: 0, length: 8) == .bytes(Array(descriptors.device[..<8])))
        #expect(descriptors.answer(to: .device, index: 1, length: 8) == .stall)
        for type in [USBDescriptorType.objectStore, .qualifier, .otherSpeed] {
            #expect(descriptors.answer(to: type, index: 0, length: 64) == .stall)
        }
        #expect(descriptors.answer(to: .string, index: 1, length: 64) == .forward)
    }

    /// Whatever a device says: no trap, no loop, and what comes out can be read again.
    @Test func randomDescriptors() {
        var generator = SeededGenerator(seed: 0x6465_7363)
        var passed = 0
        for round in 0..<4000 {
            var bytes = [SampleDescriptors.stick, SampleDescriptors.camera][round % 2]
            for _ in 0..<Int.random(in: 0...6, using: &generator) {
                let place = Int.random(in: round % 5 == 0 ? 0..<9 : 9..<bytes.count, using: &generator)
                bytes[place] = UInt8.random(in: 0...255, using: &generator)
            }
            if round % 7 == 0 { bytes.removeLast(Int.random(in: 0...bytes.count, using: &generator)) }
            if round % 11 == 0 { bytes = bytes.map { _ in UInt8.random(in: 0...255, using: &generator) } }
            _ = USBConfiguration(bytes)
            guard
                let result = try? HighSpeedDescriptors(device: SampleDescriptors.device, configurations: [bytes])
            else { continue }
            passed += 1
            let rewritten = result.configurations[0]
            #expect(rewritten.count <= bytes.count)
            #expect(Int(rewritten[2]) | Int(rewritten[3]) << 8 == rewritten.count)
            let types = USBDescriptorSequence(rewritten).map(\.type)
            #expect(!types.contains(.superSpeedCompanion) && !types.contains(.superSpeedPlusCompanion))
            for interface in USBConfiguration(rewritten)?.interfaces ?? [] {
                #expect(interface.endpoints.allSatisfy { $0.bytesPerInterval <= 3072 && $0.maxPacket <= 1024 })
            }
        }
        #expect(passed > 1000, "the test must also see descriptors that pass: \(passed)")
    }
}
