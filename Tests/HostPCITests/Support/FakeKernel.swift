// A sysfs in a temporary folder, and a kernel that does what is written into it.

import Foundation
import HostIO
import HostPCI
import Synchronization
import SystemPackage
import Testing

/// /sys/bus/pci with what a test puts there. Files are files; what writing does, `write` does.
final class FakeKernel: Sendable {
    let folder: URL
    let root: FilePath
    /// Everything that was written, as `path below the root: text`.
    private let log = Mutex<[String]>([])
    /// Paths (their ends) that cannot be written.
    private let broken = Mutex<[String: Errno]>([:])
    /// Cards that xen-pciback was told to take when it was loaded.
    private let slots = Mutex<Set<String>>([])
    /// Which driver takes a card that nobody is told to take.
    private let wanting = Mutex<[String: String]>([:])

    init() throws {
        folder = FileManager.default.temporaryDirectory.appendingPathComponent("fake-pci-\(UUID().uuidString)")
        root = FilePath(folder.appendingPathComponent("bus/pci").path)
        for path in ["bus/pci/devices", "bus/pci/drivers", "devices/pci0000:00"] {
            try FileManager.default.createDirectory(at: url(path), withIntermediateDirectories: true)
        }
    }

    deinit { try? FileManager.default.removeItem(at: folder) }

    var tree: PCITree { PCITree(root: root) }
    var memory: FilePath { FilePath(url("memory").path) }
    var locks: FilePath { FilePath(url("locks").path) }
    func stub(_ name: String = "pciback") -> PCIStub {
        PCIStub(tree: tree, name: name, memory: memory) { [self] text, path throws(Errno) in try write(text, path) }
    }
    var writes: [String] { log.withLock { $0 } }

    private func url(_ path: String) -> URL { folder.appendingPathComponent(path) }

    /// A card, below bridges if `below` says so.
    func plug(_ address: String, below bridges: [String] = [], _ changes: [String: String?] = [:]) throws {
        let path = (["devices/pci0000:00"] + bridges + [address]).joined(separator: "/")
        let directory = url(path)
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        var files: [String: String?] = [
            "sriov_numvfs": changes["sriov_totalvfs"] == nil ? nil : "0\n", "vendor": "0x8086\n", "device": "0x10d3\n",
            "class": "0x020000\n", "irq": "17\n",
            "subsystem_vendor": "0x8086\n", "subsystem_device": "0xa01f\n", "driver_override": "(null)\n",
            "reset": "", "reset_method": "flr bus\n",
            "resource": """
            0x0000000ff7a00000 0x0000000ff7a1ffff 0x0000000000140204
            0x0000000000000000 0x0000000000000000 0x0000000000000000
            0x000000000000c040 0x000000000000c05f 0x0000000000040101

            """,
        ]
        for (name, text) in changes { files[name] = text }
        for (name, text) in files {
            try text.map { try Data($0.utf8).write(to: directory.appendingPathComponent(name)) }
        }
        try Data(SampleSpace.express).write(to: directory.appendingPathComponent("config"))
        let link = url("bus/pci/devices/\(address)")
        try FileManager.default.createSymbolicLink(atPath: link.path, withDestinationPath: "../../../\(path)")
    }

    func unplug(_ address: String) throws { try FileManager.default.removeItem(at: url("bus/pci/devices/\(address)")) }

    /// - Parameter inPlace: those who have the file open see it, as in sysfs.
    func configure(_ address: String, _ bytes: [UInt8], inPlace: Bool = false) throws {
        let file = url("bus/pci/devices/\(address)/config")
        guard inPlace else { return try Data(bytes).write(to: file) }
        let handle = try FileHandle(forWritingTo: file)
        try handle.truncate(atOffset: 0)
        try handle.write(contentsOf: Data(bytes))
        try handle.close()
    }

    /// A link of a card: `physfn`, `virtfn0`, `iommu_group`.
    func link(_ address: String, _ name: String, _ target: String) throws {
        try FileManager.default.createSymbolicLink(
            atPath: url("bus/pci/devices/\(address)/\(name)").path,
            withDestinationPath: "../\(target)"
        )
    }

    func load(_ driver: String, for card: String? = nil) throws {
        try FileManager.default.createDirectory(at: url("bus/pci/drivers/\(driver)"), withIntermediateDirectories: true)
        if let card {
            wanting.withLock { $0[card] = driver }
            bind(card, driver)
        }
    }

    func want(_ card: String, _ driver: String) { wanting.withLock { $0[card] = driver } }

    /// As `xl pci-assignable-remove` without -r does it.
    func release(_ card: String) {
        _ = unbind(card)
        slots.withLock { _ = $0.remove(card) }
    }

    /// xen-pciback has the card from its own parameter, without an override.
    func hideAtBoot(_ card: String) throws {
        try load("pciback")
        slots.withLock { _ = $0.insert(card) }
        bind(card, "pciback")
    }

    func unload(_ driver: String) throws { try FileManager.default.removeItem(at: url("bus/pci/drivers/\(driver)")) }
    func fail(_ suffix: String, _ error: Errno) { broken.withLock { $0[suffix] = error } }

    private func write(_ text: String, _ path: FilePath) throws(Errno) {
        let name = path.string.dropFirst(root.string.utf8.count + 1)
        log.withLock { $0.append("\(name): \(text == "\n" ? "\\n" : text)") }
        if let error = broken.withLock({ $0.first { name.hasSuffix($0.key) }?.value }) { throw error }
        let parts = name.split(separator: "/").map(String.init)
        let manager = FileManager.default
        switch parts.last {
        case "driver_override":
            guard manager.fileExists(atPath: path.string) else { throw .noSuchFileOrDirectory }
            try? Data((text == "\n" ? "(null)" : text).utf8).write(to: URL(fileURLWithPath: path.string))
        case "unbind":
            guard unbind(text) else { throw .operationNotSupportedByDevice }
        case "bind":
            guard manager.fileExists(atPath: path.removingLastComponent().string) else { throw .noSuchFileOrDirectory }
            // A driver that does not match is as absent as the card (Linux, drivers/base/bus.c, `bind_store`).
            guard let driver = override(text) ?? wanting.withLock({ $0[text] }), driver == parts[1], !isBound(text)
            else {
                throw .operationNotSupportedByDevice
            }
            bind(text, parts[1])
        case "remove_slot":
            guard slots.withLock({ $0.remove(text) }) != nil else { throw .noSuchFileOrDirectory }
        case "sriov_numvfs": try makeFunctions(text, of: parts[1])
        case "drivers_probe": probe(text)
        default:
            guard manager.fileExists(atPath: path.string) else { throw .noSuchFileOrDirectory }
        }
    }

    private func override(_ card: String) -> String? {
        let text = (try? String(contentsOf: url("bus/pci/devices/\(card)/driver_override"), encoding: .utf8)) ?? ""
        let name = text.trimmingCharacters(in: .whitespacesAndNewlines)
        return name == "(null)" ? nil : name
    }

    private func isBound(_ card: String) -> Bool {
        (try? FileManager.default.destinationOfSymbolicLink(atPath: url("bus/pci/devices/\(card)/driver").path)) != nil
    }

    private func number(_ card: String, _ file: String) -> Int {
        let text = (try? String(contentsOf: url("bus/pci/devices/\(card)/\(file)"), encoding: .utf8)) ?? ""
        return Int(text.trimmingCharacters(in: .whitespacesAndNewlines)) ?? 0
    }

    /// As Linux has it (drivers/pci/iov.c, `sriov_numvfs_store`): only by the card's driver, only from and to 0.
    private func makeFunctions(_ text: String, of card: String) throws(Errno) {
        guard let count = Int(text) else { throw .invalidArgument }
        let old = number(card, "sriov_numvfs")
        guard count <= number(card, "sriov_totalvfs") else { throw .outOfRange }
        if count == old { return }
        guard isBound(card) else { throw .noSuchFileOrDirectory }
        guard old == 0 || count == 0 else { throw .resourceBusy }
        endFunctions(of: card)
        for index in 0..<count {
            let address = "\(card.prefix(8))10.\(index)"
            try? plug(address)
            try? link(card, "virtfn\(index)", address)
        }
        try? Data("\(count)\n".utf8).write(to: url("bus/pci/devices/\(card)/sriov_numvfs"))
    }

    private func endFunctions(of card: String) {
        for index in 0..<8 {
            try? FileManager.default.removeItem(at: url("bus/pci/devices/\(card)/virtfn\(index)"))
            try? unplug("\(card.prefix(8))10.\(index)")
        }
        try? Data("0\n".utf8).write(to: url("bus/pci/devices/\(card)/sriov_numvfs"))
    }

    private func probe(_ card: String) {
        if slots.withLock({ $0.contains(card) }) { return bind(card, "pciback") }
        guard let driver = override(card) ?? wanting.withLock({ $0[card] }) else { return }
        guard FileManager.default.fileExists(atPath: url("bus/pci/drivers/\(driver)").path) else { return }
        bind(card, driver)
    }

    private func bind(_ card: String, _ driver: String) {
        let link = url("bus/pci/devices/\(card)/driver").path
        try? FileManager.default.createSymbolicLink(
            atPath: link,
            withDestinationPath: "../../../../bus/pci/drivers/\(driver)"
        )
    }

    /// A driver ends what it made when it goes.
    private func unbind(_ card: String) -> Bool {
        if number(card, "sriov_numvfs") > 0 { endFunctions(of: card) }
        return (try? FileManager.default.removeItem(at: url("bus/pci/devices/\(card)/driver"))) != nil
    }
}

/// Configuration spaces for tests.
enum SampleSpace {
    /// 256 bytes: capabilities at 0x40 (power), 0x50 (MSI), 0x60 (PCI Express), 0x70 (MSI-X).
    static var express: [UInt8] { space([0x40: 0x0001, 0x50: 0x0005, 0x60: 0x0010, 0x70: 0x0011]) }
    /// The same without PCI Express.
    static var conventional: [UInt8] { space([0x40: 0x0001, 0x50: 0x0005]) }

    /// - Parameter capabilities: ID by offset, in a chain by their offsets.
    static func space(_ capabilities: [Int: UInt16], count: Int = 256) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        bytes[6] = 0x10
        let offsets = capabilities.keys.sorted()
        bytes[0x34] = UInt8(offsets.first ?? 0)
        for (index, offset) in offsets.enumerated() {
            bytes[offset] = UInt8(capabilities[offset]!)
            bytes[offset + 1] = index + 1 < offsets.count ? UInt8(offsets[index + 1]) : 0
        }
        return bytes
    }
}

func address(_ text: String) throws -> PCIBusAddress { try #require(PCIBusAddress(text)) }

/// The failure of a call that must fail.
func failure<T>(_ body: () throws(HostFailure) -> T) -> HostFailure? {
    do throws(HostFailure) {
        _ = try body()
        return nil
    } catch {
        return error
    }
}
