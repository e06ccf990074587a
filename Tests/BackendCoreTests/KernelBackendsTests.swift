// The kernel's bus of backends: who has a device, who would take it, giving one away.

import BackendCore
import Foundation
import SystemPackage
import Testing
import XenWire

@Suite struct KernelBackendsTests {
    private final class Bus {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("xen-backend-\(UUID().uuidString)")

        init(autoprobe: String? = "1\n", drivers: [String] = ["vbd", "xen-pciback"]) throws {
            for path in drivers.map({ "drivers/\($0)" }) + ["devices/pci-7-0"] {
                let folder = folder.appendingPathComponent(path)
                try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
            }
            for driver in drivers { try write("drivers/\(driver)/bind", "") }
            if let autoprobe { try write("drivers_autoprobe", autoprobe) }
        }

        deinit { try? FileManager.default.removeItem(at: folder) }

        var kernel: KernelBackends { KernelBackends(bus: FilePath(folder.path)) }
        func write(_ path: String, _ text: String) throws {
            try Data(text.utf8).write(to: folder.appendingPathComponent(path))
        }
        func text(_ path: String) throws -> String {
            try String(contentsOf: folder.appendingPathComponent(path), encoding: .utf8)
        }
        func bind(_ device: String, _ driver: String) throws {
            try FileManager.default.createSymbolicLink(
                atPath: folder.appendingPathComponent("devices/\(device)/driver").path,
                withDestinationPath: "../../drivers/\(driver)"
            )
        }
    }

    private let card = DevicePath(kind: .pci, domain: DomainID(7)!, index: 0)

    @Test func whoHasIt() throws {
        let bus = try Bus()
        #expect(!bus.kernel.has(card) && bus.kernel.takesAll(.pci) && bus.kernel.own(card, isNew: true))
        // What is served already is not taken by anybody.
        #expect(!bus.kernel.own(card, isNew: false))
        try bus.bind("pci-7-0", "xen-pciback")
        #expect(bus.kernel.has(card) && bus.kernel.own(card, isNew: false))
        // Of two disks of the same guest the one that is bound, and no other guest's.
        let disks = [51712, 51728].map { DevicePath(kind: .vbd, domain: DomainID(7)!, index: $0) }
        for disk in disks {
            let folder = bus.folder.appendingPathComponent("devices/\(KernelBackends.name(of: disk))")
            try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        }
        try bus.bind("vbd-7-51712", "vbd")
        #expect(bus.kernel.has(disks[0]) && !bus.kernel.has(disks[1]))
        #expect(!bus.kernel.has(DevicePath(kind: .vbd, domain: DomainID(8)!, index: 1)))
    }

    @Test func aBusThatDoesNotProbe() throws {
        let bus = try Bus()
        try bus.kernel.stopProbing()
        #expect(try bus.text("drivers_autoprobe") == "0\n" || bus.text("drivers_autoprobe") == "0")
        let quiet = try Bus(autoprobe: "0\n")
        #expect(!quiet.kernel.probesByItself && !quiet.kernel.takesAll(.pci) && !quiet.kernel.own(card, isNew: true))
        try quiet.kernel.stopProbing()
        try quiet.kernel.give(card)
        #expect(try quiet.text("drivers/xen-pciback/bind") == "pci-7-0")
    }

    /// No driver, no bus, a kind that the kernel knows nothing of.
    @Test func whatIsNotThere() throws {
        let bus = try Bus(drivers: ["vif"])
        #expect(!bus.kernel.takesAll(.pci) && bus.kernel.takesAll(.vif) && !bus.kernel.takesAll(.vusb))
        #expect(throws: Errno.noSuchFileOrDirectory) { try bus.kernel.give(card) }
        let usb = DevicePath(kind: .vusb, domain: DomainID(7)!, index: 0)
        #expect(throws: Errno.noSuchFileOrDirectory) { try bus.kernel.give(usb) }
        let none = KernelBackends(bus: "/nonexistent")
        #expect(!none.probesByItself && !none.takesAll(.vbd) && !none.own(card, isNew: true))
        try none.stopProbing()
    }
}
