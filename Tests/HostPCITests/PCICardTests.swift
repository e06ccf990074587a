// One card with one owner: accesses, power states, and the way back to what it was.

import Foundation
import HostIO
import HostPCI
import SystemPackage
import Testing

@Suite struct PCICardTests {
    private func host(_ bytes: [UInt8] = SampleSpace.express) throws -> (FakeKernel, PCIBusAddress) {
        let kernel = try FakeKernel()
        try kernel.plug("0000:08:05.0")
        try kernel.configure("0000:08:05.0", bytes)
        return (kernel, try address("0000:08:05.0"))
    }

    private func take(_ kernel: FakeKernel, _ card: PCIBusAddress, _ owner: String = "backend/pci/7/0")
        throws(HostFailure)
        -> PCICard
    { try PCICard(card, in: kernel.tree, owner: owner, locks: kernel.locks) }

    @Test func accesses() throws {
        var bytes = SampleSpace.space([:], count: 4096)
        bytes.replaceSubrange(0xFFC..<0x1000, with: [1, 2, 3, 4])
        let (kernel, address) = try host(bytes)
        let card = try take(kernel, address)
        #expect(
            try card.read(4, at: 0xFFC) == 0x0403_0201 && card.read(2, at: 0xFFE) == 0x0403
                && card.read(1, at: 0xFFD) == 2
        )
        try card.write(0xAABB_CCDD, 2, at: 0x40)
        #expect(try card.read(4, at: 0x40) == 0xCCDD && card.byteCount == 4096)
        for (count, offset) in [(4, 0x1000), (2, 0x1000), (4, -4), (2, 1), (4, 2), (3, 0), (0, 0), (8, 0)] {
            #expect(failure { () throws(HostFailure) in try card.read(count, at: offset) }?.kind == .invalid)
            #expect(failure { () throws(HostFailure) in try card.write(0, count, at: offset) }?.kind == .invalid)
        }
    }

    /// Whatever has 256 bytes has no more.
    @Test func conventional() throws {
        let (kernel, address) = try host(SampleSpace.conventional)
        let card = try take(kernel, address)
        #expect(failure { () throws(HostFailure) in try card.read(4, at: 0x100) }?.kind == .invalid)
        #expect(try card.read(4, at: 0xFC) == 0)
    }

    @Test func oneOwner() throws {
        let (kernel, address) = try host()
        var first: PCICard? = try take(kernel, address, "backend/pci/7/0")
        let error = try #require(failure { () throws(HostFailure) in try take(kernel, address, "backend/pci/8/0") })
        #expect(error.kind == .busy && error.text.contains("backend/pci/7/0 (pid "))
        // The one that was refused has not taken the name away.
        #expect(
            failure { () throws(HostFailure) in try take(kernel, address) }?.text.contains("backend/pci/7/0") == true
        )
        #expect(first?.facts.address == address)
        first = nil
        _ = try take(kernel, address, "backend/pci/8/0")
    }

    /// Several ask at the same moment: one gets it, and the others are told who.
    @Test func oneOfManyWhoAskAtOnce() async throws {
        let (kernel, address) = try host()
        for _ in 0..<20 {
            let outcomes = await withTaskGroup(of: Result<PCICard, HostFailure>.self) { group in
                for guest in 1...6 {
                    group.addTask {
                        Result { () throws(HostFailure) in
                            try PCICard(address, in: kernel.tree, owner: "backend/pci/\(guest)/0", locks: kernel.locks)
                        }
                    }
                }
                return await group.reduce(into: []) { $0.append($1) }
            }
            var owners = 0
            for outcome in outcomes {
                switch outcome {
                case .success: owners += 1
                case .failure(let failure): #expect(failure.kind == .busy && failure.text.contains("belongs to"))
                }
            }
            #expect(owners == 1)
        }
    }

    @Test func whatIsNotTaken() throws {
        let (kernel, address) = try host(Array(SampleSpace.express.prefix(64)))
        #expect(failure { () throws(HostFailure) in try take(kernel, address) }?.text.contains("CAP_SYS_ADMIN") == true)
        var bridge = SampleSpace.express
        bridge[0x0E] = 0x81
        try kernel.configure("0000:08:05.0", bridge)
        #expect(failure { () throws(HostFailure) in try take(kernel, address) }?.kind == .denied)
        try kernel.unplug("0000:08:05.0")
        #expect(failure { () throws(HostFailure) in try take(kernel, address) }?.kind == .notFound)
    }

    /// sysfs's file is empty when the card was pulled out.
    @Test func aCardThatIsPulledOut() throws {
        let (kernel, address) = try host()
        let card = try take(kernel, address)
        try kernel.configure("0000:08:05.0", [], inPlace: true)
        #expect(failure { () throws(HostFailure) in try card.read(2, at: 0) }?.kind == .notFound)
        // It reads short: the rest is not made up.
        try kernel.configure("0000:08:05.0", [0x86, 0x80, 0xD3], inPlace: true)
        #expect(try card.read(2, at: 0) == 0x8086)
        #expect(failure { () throws(HostFailure) in try card.read(4, at: 0) }?.kind == .notFound)
    }

    @Test func powerStates() throws {
        var bytes = SampleSpace.express
        bytes.replaceSubrange(0x10..<0x14, with: [0x00, 0x00, 0xA0, 0xF7])
        (bytes[4], bytes[5], bytes[0x45]) = (0x07, 0x04, 0x80)
        let (kernel, address) = try host(bytes)
        let card = try take(kernel, address)
        try card.enter(powerState: 3)
        #expect(try card.read(2, at: 0x44) == 3)
        // It forgets on the way.
        for offset in stride(from: 0x10, to: 0x28, by: 4) { try card.write(0, 4, at: offset) }
        try card.write(0, 2, at: 4)
        try card.enter(powerState: 0)
        #expect(
            try card.read(4, at: 0x10) == 0xF7A0_0000 && card.read(2, at: 4) == 0x0403 && card.read(2, at: 0x44) == 0
        )
        // One that does not forget is left alone.
        try card.write(0x000B, 2, at: 0x44)
        try card.write(0, 4, at: 0x10)
        try card.enter(powerState: 0)
        #expect(try card.read(4, at: 0x10) == 0)
    }

    @Test func withoutPowerStates() throws {
        let (kernel, address) = try host(SampleSpace.space([0x50: 5]))
        let card = try take(kernel, address)
        #expect(failure { () throws(HostFailure) in try card.enter(powerState: 3) }?.kind == .denied)
    }

    @Test func busMasteringAndRestore() throws {
        var bytes = SampleSpace.express
        (bytes[4], bytes[0x0C], bytes[0x3C]) = (0x02, 0x10, 0x0B)
        let (kernel, address) = try host(bytes)
        let card = try take(kernel, address)
        try card.setBusMaster(true)
        #expect(try card.read(2, at: 4) == 0x06)
        for offset in stride(from: 0x10, to: 0x28, by: 4) { try card.write(.max, 4, at: offset) }
        for offset in [0x0C, 0x3C] { try card.write(0x55, 1, at: offset) }
        try card.restore()
        for offset in stride(from: 4, to: 0x40, by: 4) {
            #expect(try card.read(4, at: offset) == original(bytes, offset), "\(offset)")
        }
        try card.setBusMaster(false)
        #expect(try card.read(2, at: 4) == 0x02)
    }

    private func original(_ bytes: [UInt8], _ offset: Int) -> UInt32 {
        bytes[offset..<offset + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) }
    }
}
