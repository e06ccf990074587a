// Which guests' buses are ours, beside a kernel with a backend of its own.

import BackendCore
import Foundation
import PCIBackend
import SystemPackage
import Testing
import XenWire

@testable import HostPCI

@Suite struct PCIClassTests {
    private let folder = FileManager.default.temporaryDirectory.appendingPathComponent("pci-class-\(UUID().uuidString)")

    private func owns(_ state: XenbusState, autoprobe: String, hasDriver: Bool = true, isBound: Bool = false) throws
        -> Bool
    {
        let files = FileManager.default
        defer { try? files.removeItem(at: folder) }
        try files.createDirectory(
            at: folder.appendingPathComponent(hasDriver ? "drivers/xen-pciback" : "drivers"),
            withIntermediateDirectories: true
        )
        try Data("\(autoprobe)\n".utf8).write(to: folder.appendingPathComponent("drivers_autoprobe"))
        let device = folder.appendingPathComponent("devices/pci-7-0")
        try files.createDirectory(at: device, withIntermediateDirectories: true)
        if isBound {
            try files.createSymbolicLink(
                atPath: device.appendingPathComponent("driver").path,
                withDestinationPath: "../../drivers/xen-pciback"
            )
        }
        let host = KernelPCIHost(PCIStub(memory: "/nonexistent"), locks: "/nonexistent")
        let pci = PCIClass(host: host, kernel: KernelBackends(bus: FilePath(folder.path)))
        let path = DevicePath(kind: .pci, domain: DomainID(7)!, index: 0)
        return pci.owns(BackendNodes(path: path, own: .initial, values: ["state": state.text]))
    }

    @Test func whatTheKernelWouldTakeIsTheKernels() throws {
        #expect(try !owns(.initialising, autoprobe: "1"))
        #expect(try owns(.initialising, autoprobe: "0"))
        #expect(try owns(.initialising, autoprobe: "1", hasDriver: false))
        // What we serve stays ours, whoever switches the bus on again.
        #expect(try owns(.connected, autoprobe: "1") && owns(.closed, autoprobe: "1"))
        #expect(try !owns(.connected, autoprobe: "0", isBound: true))
    }
}
