// sysfs as Linux shows it, and as it looks while a device comes or goes.

import Foundation
import HostIO
import SimulatedHost
import SystemPackage
import Testing

@testable import HostUSB

@Suite struct DeviceTreeTests {
    @Test func aDeviceIsRead() throws {
        let fake = try FakeTree()
        try fake.plugDisk()
        let facts = try #require(fake.tree.devices().first)
        var expected = try stick()
        expected.release = 0x0100
        expected.manufacturerName = "SanDisk"
        expected.productName = "Ultra Größe"
        expected.serial = "4C53 01"
        #expect(facts == expected)
        #expect(try fake.tree.descriptors(of: facts.address) == disk().descriptors)
        #expect(fake.tree.isAuthorized(facts.address))
        #expect(fake.tree.drivers(of: facts.address).isEmpty)
    }

    @Test func onlyDevicesAreListed() throws {
        let fake = try FakeTree()
        for name in ["usb1", "3-1.5:1.0", "1-0:1.0", "README", "3-01", "100-1"] { try fake.plugDisk(name) }
        try fake.plugDisk("10-1")
        try fake.plugDisk("2-1.10")
        try fake.plugDisk("2-1.9")
        #expect(try fake.tree.devices().map { "\($0.address)" } == ["2-1.9", "2-1.10", "10-1"])
    }

    @Test func aHostWithoutUSBHasNoDevices() throws {
        #expect(try DeviceTree(root: "/nonexistent/usb").devices().isEmpty)
        #expect(throws: HostFailure.self) { try DeviceTree(root: "/dev/null").devices() }
    }

    @Test(arguments: ["busnum", "devnum", "idVendor", "idProduct", "bDeviceClass", "speed"])
    func aDeviceThatIsGoingIsNone(_ missing: String) throws {
        let fake = try FakeTree()
        try fake.plugDisk("3-1.5", [missing: String?.none])
        #expect(try fake.tree.devices().isEmpty)
    }

    @Test(arguments: [
        ("busnum", "300\n"), ("devnum", "-1\n"), ("devnum", ""), ("idVendor", "781\n"), ("idVendor", "zzzz\n"),
        ("idProduct", "+581\n"), ("bDeviceClass", "0\n"), ("speed", "480 Mbit\n"), ("speed", "\n"),
    ])
    func nonsenseIsNoDevice(_ file: String, _ text: String) throws {
        let fake = try FakeTree()
        try fake.plugDisk("3-1.5", [file: text])
        #expect(try fake.tree.devices().isEmpty)
    }

    @Test(arguments: [
        ("1.5", USBSpeed.low), ("12", .full), ("480", .high), ("5000", .super), ("10000", .super), ("20000", .super),
    ])
    func speedsAreRead(_ text: String, _ speed: USBSpeed) throws {
        let fake = try FakeTree()
        try fake.plugDisk("3-1.5", ["speed": text + "\n"])
        #expect(try fake.tree.devices().first?.speed == speed)
    }

    @Test func whatMayBeMissingIsNil() throws {
        let fake = try FakeTree()
        try fake.plugDisk(
            "3-1.5",
            ["manufacturer": nil, "product": nil, "serial": "\n", "bConfigurationValue": "\n", "authorized": "0\n"]
        )
        let facts = try #require(fake.tree.devices().first)
        #expect(facts.manufacturerName == nil && facts.productName == nil && facts.serial == nil)
        #expect(facts.activeConfiguration == nil)
        #expect(!fake.tree.isAuthorized(facts.address))
    }

    @Test func classesOfAllInterfaces() throws {
        let fake = try FakeTree()
        try fake.plugDisk("3-1.5", ["3-1.5:1.1/bInterfaceClass": "03\n", "3-1.5:1.2/bInterfaceClass": "08\n"])
        try FileManager.default.createSymbolicLink(
            atPath: fake.path.appendingPathComponent("3-1.5/3-1.5:1.1/driver").path,
            withDestinationPath: "../../../../bus/usb/drivers/usbhid"
        )
        let facts = try #require(fake.tree.devices().first)
        #expect(facts.interfaceClasses == [3, 8])
        #expect(fake.tree.drivers(of: facts.address) == ["usbhid"])
    }
}

@Suite struct DescriptorTests {
    @Test func configurationsAreTakenApart() throws {
        let sound = SimulatedSound(.microphone).descriptors
        let configuration = try #require(sound.configuration(1))
        #expect(configuration.interfaces == [0, 1])
        #expect(configuration.settings.map(\.alternate) == [0, 0, 1])
        #expect(
            configuration.settings[2].endpoints == [
                .init(address: 0x81, kind: .isochronous, packetSize: 192, interval: 1)
            ]
        )
        #expect(sound.configuration(2) == nil)
    }

    /// Every prefix, and every byte changed: nothing traps, and what comes out is no more than went in.
    @Test func brokenDescriptorsAreTakenAsFarAsTheyGo() throws {
        for whole in [try disk(speed: .super).descriptors, SimulatedSound(.loudspeaker).descriptors] {
            let bytes = whole.configurations[0]
            for count in 0..<bytes.count {
                let settings = ConfigurationDescriptor(Array(bytes[..<count]))?.settings ?? []
                #expect(settings.count <= 3)
            }
            let all = whole.device + bytes
            for count in 0..<all.count {
                #expect(USBDescriptors(Array(all[..<count]))?.configurations.isEmpty ?? true)
            }
            for position in all.indices {
                for value: UInt8 in [0, 1, 2, 3, 0x7f, 0xff] {
                    var changed = all
                    changed[position] = value
                    let parsed = USBDescriptors(changed)
                    for configuration in parsed?.configurations ?? [] { _ = ConfigurationDescriptor(configuration) }
                }
            }
            #expect(USBDescriptors(all) == whole)
        }
        #expect(ConfigurationDescriptor([9, 4, 0, 0, 0, 1, 0, 0, 0]) == nil)
    }

    @Test func setupPacketsAreBytes() throws {
        let setup = USBSetup(requestType: 0x81, request: 6, value: 0x2200, index: 1, length: 0x1234)
        #expect(setup.bytes == [0x81, 6, 0, 0x22, 1, 0, 0x34, 0x12])
        #expect(setup.isToHost && !setup.isForHost)
        #expect(!USBSetup(requestType: 0x80, request: 0).isToHost)
        #expect(USBSetup(requestType: 2, request: 1, value: 0).isForHost)
        #expect(!USBSetup(requestType: 2, request: 1, value: 1).isForHost)
    }
}
