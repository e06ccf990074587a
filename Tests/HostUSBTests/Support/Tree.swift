// A copy of sysfs in a temporary directory, with what a test plugs in.

import Foundation
import SharedRing
import SimulatedHost
import SystemPackage

@testable import HostUSB

/// A directory like /sys/bus/usb/devices, removed in the end.
final class FakeTree {
    let path: URL

    init() throws {
        path = FileManager.default.temporaryDirectory.appendingPathComponent("usb-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(at: path) }

    var root: FilePath { FilePath(path.path) }
    var tree: DeviceTree { DeviceTree(root: root) }

    func write(_ name: String, _ text: String) throws { try write(name, Data(text.utf8)) }

    func write(_ name: String, _ data: Data) throws {
        let file = path.appendingPathComponent(name)
        try FileManager.default.createDirectory(
            at: file.deletingLastPathComponent(),
            withIntermediateDirectories: true
        )
        try data.write(to: file)
    }

    func remove(_ name: String) throws { try FileManager.default.removeItem(at: path.appendingPathComponent(name)) }

    /// A flash disk as Linux shows one.
    func plugDisk(_ name: String = "3-1.5", number: Int = 7, _ changes: [String: String?] = [:]) throws {
        var files: [String: String?] = [
            "busnum": "3\n", "devnum": "\(number)\n", "idVendor": "0781\n", "idProduct": "5581\n",
            "bcdDevice": "0100\n", "manufacturer": "SanDisk\n", "product": "Ultra Größe\n", "serial": "4C53 01\n",
            "bDeviceClass": "00\n", "speed": "480\n", "bNumConfigurations": " 1\n", "bConfigurationValue": "1\n",
            "authorized": "1\n", "\(name):1.0/bInterfaceClass": "08\n",
        ]
        files.merge(changes) { $1 }
        for (file, text) in files { if let text { try write("\(name)/\(file)", text) } }
        let descriptors = try disk().descriptors
        try write("\(name)/descriptors", Data(descriptors.device + descriptors.configurations.joined()))
    }
}

/// A disk whose descriptors stand for those of a real one.
func disk(speed: USBSpeed = .high) throws -> SimulatedDisk {
    SimulatedDisk(try PrivatePages(byteCount: 256 * 512), speed: speed)
}
