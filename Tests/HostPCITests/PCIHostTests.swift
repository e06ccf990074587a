// Cards on their way from guest to guest: nobody gets one after another without a reset.

import Foundation
import HostIO
import SystemPackage
import Testing

@testable import HostPCI

@Suite struct PCIHostTests {
    private func host() throws -> (FakeKernel, KernelPCIHost, PCIBusAddress) {
        let kernel = try FakeKernel()
        try kernel.plug("0000:08:05.0")
        try kernel.load("pciback", for: "0000:08:05.0")
        return (kernel, KernelPCIHost(kernel.stub(), locks: kernel.locks), try address("0000:08:05.0"))
    }

    private func take(
        _ host: KernelPCIHost,
        _ card: PCIBusAddress,
        _ owner: String,
        isTakeover: Bool = false
    ) throws(HostFailure) -> any OpenPCICard {
        try host.take(card, owner: owner, isTakeover: isTakeover)
    }

    private func resets(_ kernel: FakeKernel) -> Int { kernel.writes.count { $0.hasSuffix("/reset: 1") } }

    @Test func aCardThatWasFinishedIsTakenAsItIs() throws {
        let (kernel, host, card) = try host()
        #expect(try take(host, card, "backend/pci/7/0").finish() == nil)
        #expect(resets(kernel) == 1)
        _ = try take(host, card, "backend/pci/8/0")
        #expect(resets(kernel) == 1)
    }

    @Test func aVirtualFunctionsMemoryIsItsParents() throws {
        let (kernel, host, card) = try host()
        try kernel.plug("0000:08:00.0")
        try kernel.link("0000:08:05.0", "physfn", "0000:08:00.0")
        let open = try take(host, card, "backend/pci/7/0")
        #expect(try !open.decodesMemory())
        var bytes = SampleSpace.express
        bytes[4] = 0x02
        try kernel.configure("0000:08:05.0", bytes, inPlace: true)
        #expect(try !open.decodesMemory())
        try kernel.configure("0000:08:00.0", bytes, inPlace: true)
        #expect(try open.decodesMemory())
        try kernel.unplug("0000:08:00.0")
        #expect(failure { () throws(HostFailure) in try open.decodesMemory() }?.kind == .notFound)
        // A card of its own has a switch of its own.
        let (other, otherHost, own) = try self.host()
        let alone = try take(otherHost, own, "backend/pci/7/0")
        try other.configure("0000:08:05.0", bytes, inPlace: true)
        #expect(try alone.decodesMemory())
    }

    /// Whoever had it died with everybody who could have reset it.
    @Test func aCardThatWasLeftIsResetBeforeTheNextOwnerHasIt() throws {
        let (kernel, host, card) = try host()
        _ = try take(host, card, "backend/pci/7/0")
        // The guest left it with bus mastering, and its pin off.
        var bytes = SampleSpace.express
        bytes.replaceSubrange(4..<6, with: [0x06, 0x04])
        try kernel.configure("0000:08:05.0", bytes, inPlace: true)
        // Its own successor goes on.
        _ = try take(host, card, "backend/pci/7/0", isTakeover: true)
        #expect(resets(kernel) == 0)
        // A new guest of the same number does not.
        let next = try take(host, card, "backend/pci/7/0")
        #expect(resets(kernel) == 1)
        #expect(next.original.bytes[4] == 0x02 && next.original.bytes[5] == 0x00)
    }

    @Test func aCardThatCannotBeResetIsRefusedByName() throws {
        let (kernel, host, card) = try host()
        _ = try take(host, card, "backend/pci/7/0")
        kernel.fail("/reset", .ioError)
        let error = try #require(failure { () throws(HostFailure) in try take(host, card, "backend/pci/8/0") })
        #expect(error.kind == .denied && error.text.contains("backend/pci/7/0") && error.text.contains("quarantine"))
        // And so on, for whoever asks.
        #expect(failure { () throws(HostFailure) in try take(host, card, "backend/pci/7/0") }?.kind == .denied)
    }

    @Test func aResetThatFailsAtTheEndKeepsTheMark() throws {
        let (kernel, host, card) = try host()
        let open = try take(host, card, "backend/pci/7/0")
        kernel.fail("/reset", .ioError)
        #expect(failure { () throws(HostFailure) in try open.finish() }?.kind == .host)
        #expect(FileManager.default.fileExists(atPath: kernel.locks.appending("0000:08:05.0.used").string))
    }

    @Test func aCardWithoutAnyResetIsGivenOnWithAWord() throws {
        let (kernel, host, card) = try host()
        try Data().write(to: URL(fileURLWithPath: kernel.root.appending("devices/0000:08:05.0/reset_method").string))
        let note = try take(host, card, "backend/pci/7/0").finish()
        #expect(note?.contains("cannot be reset") == true)
        _ = try take(host, card, "backend/pci/8/0")
        #expect(resets(kernel) == 0)
    }

    @Test func aCardThatAHostsDriverHasIsNotTaken() throws {
        let (kernel, host, _) = try host()
        try kernel.plug("0000:08:06.0")
        let card = try address("0000:08:06.0")
        let open = try #require(failure { () throws(HostFailure) in try take(host, card, "backend/pci/7/0") })
        #expect(open.kind == .denied && open.text.contains("pci-assignable-add"))
        try kernel.load("e1000e", for: "0000:08:06.0")
        let used = try #require(failure { () throws(HostFailure) in try take(host, card, "backend/pci/7/0") })
        #expect(used.kind == .busy && used.text.contains("e1000e"))
    }

    @Test func errorsOfCardsAreReadFromTheKernelsMessages() throws {
        func message(_ texts: [String]) -> ArraySlice<UInt8> { texts.flatMap { Array($0.utf8) + [0] }[...] }
        let head = "change@/devices/pci0000:00/0000:08:05.0"
        let texts = ["ACTION=change", "SUBSYSTEM=pci", "PCI_SLOT_NAME=0000:08:05.0", "ERROR_EVENT=BEGIN_RECOVERY"]
        #expect(PCIErrorEvent(message([head] + texts)) == PCIErrorEvent(try address("0000:08:05.0"), .began))
        for index in texts.indices where index > 0 {
            var less = texts
            less.remove(at: index)
            #expect(PCIErrorEvent(message([head] + less)) == nil)
        }
        #expect(PCIErrorEvent(message(["add@/x"] + texts)) == nil)
        #expect(PCIErrorEvent(message([head] + texts).dropLast()) == nil)
        #expect(PCIErrorEvent([]) == nil)
        #expect(
            PCIErrorEvent(message([head, "SUBSYSTEM=pci", "PCI_SLOT_NAME=x", "ERROR_EVENT=BEGIN_RECOVERY"])) == nil
        )
    }
}
