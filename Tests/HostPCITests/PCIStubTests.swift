// Hiding and giving back, on a kernel that refuses at every step.

import Foundation
import HostIO
import HostPCI
import SystemPackage
import Testing

@Suite struct PCIStubTests {
    private func host(bound: Bool = true) throws -> (FakeKernel, PCIBusAddress) {
        let kernel = try FakeKernel()
        try kernel.plug("0000:08:05.0")
        try kernel.load("pciback")
        try kernel.load("e1000e", for: bound ? "0000:08:05.0" : nil)
        return (kernel, try address("0000:08:05.0"))
    }

    @Test func hideAndGiveBack() throws {
        let (kernel, card) = try host()
        #expect(try kernel.stub().hidden().isEmpty)
        #expect(try kernel.stub().hide(card) == "e1000e")
        #expect(try kernel.stub().hidden().map(\.address) == [card])
        #expect(
            kernel.writes == [
                "devices/0000:08:05.0/driver_override: pciback", "devices/0000:08:05.0/driver/unbind: 0000:08:05.0",
                "drivers_probe: 0000:08:05.0",
            ]
        )
        // Another service, later: it remembers, and does nothing twice.
        #expect(try kernel.stub().hide(card) == "e1000e" && kernel.writes.count == 3)
        #expect(try kernel.stub().unhide(card) == "e1000e")
        #expect(try kernel.tree.device(card).driverOverride == nil && kernel.stub().remembered(card) == nil)
        let count = kernel.writes.count
        #expect(try kernel.stub().unhide(card) == "e1000e" && kernel.writes.count == count)
    }

    @Test func aCardWithoutADriver() throws {
        let (kernel, card) = try host(bound: false)
        #expect(try kernel.stub().hide(card) == nil && kernel.stub().hidden().count == 1)
        #expect(try kernel.stub().unhide(card) == nil && kernel.tree.device(card).driver == nil)
    }

    /// By xen-pciback's own parameter: it would take it again at the next probe.
    @Test func aCardThatWasHiddenAtTheBoot() throws {
        let kernel = try FakeKernel()
        try kernel.plug("0000:08:05.0")
        try kernel.hideAtBoot("0000:08:05.0")
        try kernel.load("e1000e", for: nil)
        kernel.want("0000:08:05.0", "e1000e")
        let card = try address("0000:08:05.0")
        #expect(try kernel.stub().hidden().map(\.address) == [card])
        #expect(try kernel.stub().unhide(card) == "e1000e")
        #expect(try kernel.tree.device(card).driver == "e1000e")
        // Taken from the stub by the toolstack, when it ended the hypervisor's quarantine.
        kernel.release("0000:08:05.0")
        #expect(try kernel.tree.device(card).driver == nil)
        #expect(try kernel.stub().unhide(card) == "e1000e")
    }

    /// As `xl pci-assignable-remove` without -r leaves it.
    @Test func aCardThatIsLeftAlone() throws {
        let (kernel, card) = try host()
        try kernel.stub().hide(card)
        #expect(try kernel.stub().unhide(card, rebinds: false) == nil)
        let facts = try kernel.tree.device(card)
        #expect(facts.driver == nil && facts.driverOverride == nil && kernel.stub().remembered(card) == nil)
    }

    /// The driver that had it may be gone when it is given back; another one may want it then.
    @Test func aDriverThatIsGone() throws {
        let (kernel, card) = try host()
        try kernel.stub().hide(card)
        try kernel.unload("e1000e")
        #expect(try kernel.stub().unhide(card) == nil && kernel.tree.device(card).driver == nil)
        #expect(kernel.writes.last == "drivers_probe: 0000:08:05.0")
    }

    @Test(arguments: ["driver_override", "driver/unbind", "drivers_probe"])
    func aKernelThatRefuses(_ file: String) throws {
        let (kernel, card) = try host()
        kernel.fail(file, .permissionDenied)
        let error = try #require(failure { () throws(HostFailure) in try kernel.stub().hide(card) })
        #expect(error.kind == .host && "\(error)".contains("0000:08:05.0"))
        // It is the driver's as before, and nothing is remembered.
        let facts = try kernel.tree.device(card)
        #expect(facts.driver == "e1000e" && (facts.driverOverride == nil || file == "driver_override"))
        #expect(kernel.stub().remembered(card) == nil)
    }

    /// The probe succeeds and yet the stub does not have the card: something else matched first, or its probe failed.
    @Test func aStubThatDoesNotTakeIt() throws {
        let (kernel, card) = try host()
        let stub = kernel.stub("vfio-pci")
        try kernel.load("vfio-pci")
        try kernel.unload("vfio-pci")
        let missing = try #require(failure { () throws(HostFailure) in try stub.hide(card) })
        #expect(missing.kind == .host && "\(missing)".contains("modprobe vfio-pci"))
        #expect(kernel.writes.isEmpty)
        let other = PCIStub(tree: kernel.tree, memory: kernel.memory) { _, _ throws(Errno) in }
        #expect(try #require(failure { () throws(HostFailure) in try other.hide(card) }).text.contains("did not take"))
        #expect(try kernel.tree.device(card).driver == "e1000e" && other.remembered(card) == nil)
    }

    @Test func whatIsNotHidden() throws {
        let (kernel, _) = try host()
        try kernel.plug("0000:00:1c.0", ["class": "0x060400\n"])
        #expect(
            failure { () throws(HostFailure) in try kernel.stub().hide(PCIBusAddress("0000:00:1c.0")!) }?.kind
                == .denied
        )
        #expect(
            failure { () throws(HostFailure) in try kernel.stub().hide(PCIBusAddress("0000:09:00.0")!) }?.kind
                == .notFound
        )
        try kernel.unload("pciback")
        let error = failure { () throws(HostFailure) in try kernel.stub().hide(PCIBusAddress("0000:08:05.0")!) }
        #expect(error?.text.contains("modprobe xen-pciback") == true && kernel.writes.isEmpty)
    }

    /// The driver takes its virtual functions along when it goes.
    @Test func aCardWithVirtualFunctions() throws {
        let (kernel, card) = try host()
        try kernel.plug("0000:08:10.0")
        try kernel.link("0000:08:05.0", "virtfn0", "0000:08:10.0")
        let error = try #require(failure { () throws(HostFailure) in try kernel.stub().hide(card) })
        #expect(error.kind == .busy && error.text.contains("pci-vf 0000:08:05.0 --count 0") && kernel.writes.isEmpty)
    }

    /// What is written down becomes a path.
    @Test(arguments: ["", "\n", "../../kernel", "a/b", ".", "e1000e\nrm"])
    func memoryIsNotBelieved(_ text: String) throws {
        let (kernel, card) = try host()
        try FileManager.default.createDirectory(atPath: kernel.memory.string, withIntermediateDirectories: true)
        try Data(text.utf8).write(to: URL(fileURLWithPath: kernel.memory.string + "/0000:08:05.0"))
        #expect(kernel.stub().remembered(card) == (text.hasPrefix("e1000e") ? "e1000e" : nil))
    }

    @Test func aStubThatDoesNotLetGo() throws {
        let (kernel, card) = try host()
        try kernel.stub().hide(card)
        kernel.fail("driver/unbind", .resourceBusy)
        let error = try #require(failure { () throws(HostFailure) in try kernel.stub().unhide(card) })
        #expect(error.text.contains("is a guest using it?") && kernel.stub().remembered(card) == "e1000e")
        #expect(
            try kernel.tree.device(card).driver == "pciback" && kernel.tree.device(card).driverOverride == "pciback"
        )
    }

    @Test func reset() throws {
        let (kernel, card) = try host()
        try kernel.stub().reset(card)
        #expect(kernel.writes == ["devices/0000:08:05.0/reset: 1"])
        kernel.fail("/reset", .ioError)
        #expect(failure { () throws(HostFailure) in try kernel.stub().reset(card) }?.kind == .host)
        try kernel.plug("0000:09:00.0", ["reset_method": "\n"])
        #expect(
            failure { () throws(HostFailure) in try kernel.stub().reset(PCIBusAddress("0000:09:00.0")!) }?.kind
                == .denied
        )
        try kernel.unplug("0000:08:05.0")
        #expect(failure { () throws(HostFailure) in try kernel.stub().reset(card) }?.kind == .notFound)
    }

    @Test func virtualFunctions() throws {
        let kernel = try FakeKernel()
        try kernel.plug("0000:02:00.0", ["sriov_totalvfs": "4\n", "sriov_drivers_autoprobe": "1\n"])
        try kernel.plug("0000:03:00.0")
        let card = try address("0000:02:00.0")
        try kernel.stub().makeVirtualFunctions(0, of: card)
        // Without its own driver the kernel makes none.
        let lonely = failure { () throws(HostFailure) in try kernel.stub().makeVirtualFunctions(2, of: card) }
        #expect(lonely?.text.contains("load that driver") == true && kernel.writes.isEmpty)
        try kernel.load("pciback")
        try kernel.load("igb", for: "0000:02:00.0")
        try kernel.stub().makeVirtualFunctions(2, of: card)
        #expect(
            kernel.writes == [
                "devices/0000:02:00.0/sriov_drivers_autoprobe: 0", "devices/0000:02:00.0/sriov_numvfs: 2",
            ]
        )
        #expect(try kernel.tree.device(card).virtualFunctions.map { "\($0)" } == ["0000:02:10.0", "0000:02:10.1"])
        // The kernel changes no other number than 0.
        try kernel.stub().makeVirtualFunctions(3, of: card)
        #expect(
            Array(kernel.writes.suffix(2)) == [
                "devices/0000:02:00.0/sriov_numvfs: 0", "devices/0000:02:00.0/sriov_numvfs: 3",
            ]
        )
        #expect(
            failure { () throws(HostFailure) in try kernel.stub().makeVirtualFunctions(5, of: card) }?.kind == .invalid
        )
        #expect(failure { () throws(HostFailure) in try kernel.stub().hide(card) }?.kind == .busy)
        try kernel.stub().makeVirtualFunctions(0, of: card)
        #expect(try kernel.tree.device(card).virtualFunctions.isEmpty && kernel.stub().hide(card) == "igb")
        let hidden = failure { () throws(HostFailure) in try kernel.stub().makeVirtualFunctions(1, of: card) }
        #expect(hidden?.text.contains("pci-assignable-remove -r 0000:02:00.0") == true)
        #expect(
            failure { () throws(HostFailure) in
                try kernel.stub().makeVirtualFunctions(1, of: PCIBusAddress("0000:03:00.0")!)
            }?
            .kind == .denied
        )
    }
}
