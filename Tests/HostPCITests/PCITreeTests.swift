// sysfs as Linux shows it, with cards that come, go and write nonsense.

import Foundation
import HostIO
import HostPCI
import SystemPackage
import Testing

@Suite struct PCITreeTests {
    @Test func aCardIsRead() throws {
        let kernel = try FakeKernel()
        try kernel.plug("0000:08:05.0", below: ["0000:00:1c.0"], ["boot_vga": "1\n", "sriov_totalvfs": "8\n"])
        try kernel.load("e1000e", for: "0000:08:05.0")
        let facts = try kernel.tree.device(address("0000:08:05.0"))
        #expect(facts.vendor == 0x8086 && facts.product == 0x10D3 && facts.classCode == 0x02_0000)
        #expect(facts.subsystemVendor == 0x8086 && facts.subsystemProduct == 0xA01F && facts.interrupt == 17)
        #expect(facts.driver == "e1000e" && facts.driverOverride == nil && facts.group == nil && facts.isBootVGA)
        #expect(try facts.bridge == address("0000:00:1c.0") && facts.virtualFunctionLimit == 8)
        #expect(!facts.isBridge && !facts.isDisplay && "\(facts)" == "0000:08:05.0: ID 8086:10d3 class 0200")
        // A window above 4 GiB keeps all its bits.
        #expect(facts.windows.first == PCIWindow(start: 0xF_F7A0_0000, end: 0xF_F7A1_FFFF, flags: 0x14_0204))
        #expect(facts.windows.count == 3 && facts.windows[2].start == 0xC040)
        #expect(kernel.tree.resetMethods(of: facts.address) == [.functionLevel, .bus])
    }

    @Test(arguments: ["vendor", "device", "class", "resource"])
    func aCardThatIsGoingIsNone(_ missing: String) throws {
        let kernel = try FakeKernel()
        try kernel.plug("0000:08:05.0", [missing: String?.none])
        try kernel.plug("0000:08:06.0")
        #expect(try kernel.tree.devices().map { "\($0.address)" } == ["0000:08:06.0"])
        #expect(
            failure { () throws(HostFailure) in try kernel.tree.device(PCIBusAddress("0000:08:05.0")!) }?.kind
                == .notFound
        )
    }

    @Test(arguments: [
        ("vendor", "8086\n"), ("vendor", "0x18086\n"), ("device", "0x\n"), ("class", ""), ("class", "0xzz\n"),
        ("resource", "0x0 0x0\n"), ("resource", "0x0 0x0 0x10000000000000000\n"), ("resource", "a b c\n"),
    ])
    func nonsenseIsNoCard(_ file: String, _ text: String) throws {
        let kernel = try FakeKernel()
        try kernel.plug("0000:08:05.0", [file: text])
        #expect(try kernel.tree.devices().isEmpty)
    }

    @Test func onlyCardsAreListed() throws {
        let kernel = try FakeKernel()
        for name in ["0000:08:05.0", "10000:01:00.0", "0000:00:1f.6", "0000:0a:00.0"] { try kernel.plug(name) }
        for name in ["README", "0000:08:20.0", "0000:08:05.8", "00000:08:05.1", "0000:8:05.0", "0000:0A:00.1"] {
            try kernel.plug(name)
        }
        #expect(
            try kernel.tree.devices().map { "\($0.address)" } == [
                "0000:00:1f.6", "0000:08:05.0", "0000:0a:00.0", "10000:01:00.0",
            ]
        )
    }

    @Test func aHostWithoutPCIHasNoCards() throws {
        #expect(try PCITree(root: "/nonexistent/pci").devices().isEmpty)
        #expect(throws: HostFailure.self) { try PCITree(root: "/dev/null").devices() }
    }

    @Test func resetMethods() throws {
        let kernel = try FakeKernel()
        try kernel.plug("0000:01:00.0", ["reset_method": "\n"])
        try kernel.plug("0000:02:00.0", ["reset_method": String?.none])
        try kernel.plug("0000:03:00.0", ["reset_method": String?.none, "reset": String?.none])
        try kernel.plug("0000:04:00.0", ["reset_method": "device_specific af_flr pm bus cxl_bus\n"])
        let methods = try ["0000:01:00.0", "0000:02:00.0", "0000:03:00.0", "0000:04:00.0", "0000:05:00.0"].map { name in
            try kernel.tree.resetMethods(of: address(name))
        }
        #expect(methods[0].isEmpty && methods[1] == [.unknown] && methods[2].isEmpty && methods[4].isEmpty)
        #expect(methods[3].map(\.isOwnFunctionOnly) == [true, true, true, false, false])
        #expect(!PCIResetMethod.unknown.isOwnFunctionOnly)
    }

    @Test func virtualFunctions() throws {
        let kernel = try FakeKernel()
        try kernel.plug("0000:02:00.0", ["sriov_totalvfs": "2\n"])
        for (index, name) in ["0000:02:10.0", "0000:02:10.2"].enumerated() {
            try kernel.plug(name, ["reset_method": "flr\n"])
            try kernel.link(name, "physfn", "0000:02:00.0")
            try kernel.link("0000:02:00.0", "virtfn\(index)", name)
        }
        let card = try kernel.tree.device(address("0000:02:00.0"))
        #expect(card.virtualFunctions.map { "\($0)" } == ["0000:02:10.0", "0000:02:10.2"])
        let function = try kernel.tree.device(address("0000:02:10.2"))
        #expect(function.physicalFunction == card.address)
        #expect(try kernel.tree.companions(of: function).isEmpty)
    }
}

@Suite struct PCICompanionTests {
    /// Behind a bridge to conventional PCI the IOMMU sees one card.
    @Test func conventionalCardsOfOneBus() throws {
        let kernel = try FakeKernel()
        for name in ["0000:08:05.0", "0000:08:06.0"] {
            try kernel.plug(name, below: ["0000:00:1e.0"])
            try kernel.configure(name, SampleSpace.conventional)
        }
        try kernel.plug("0000:00:1e.0", ["class": "0x060401\n"])
        try kernel.plug("0000:09:05.0")
        let card = try kernel.tree.device(address("0000:08:05.0"))
        #expect(try kernel.tree.companions(of: card).map { "\($0.address)" } == ["0000:08:06.0"])
        // On a root bus each has its own name.
        let other = try kernel.tree.device(address("0000:09:05.0"))
        try kernel.configure("0000:09:05.0", SampleSpace.conventional)
        #expect(try kernel.tree.companions(of: other).isEmpty)
    }

    @Test(
        arguments: [("flr bus\n", []), ("bus\n", ["0000:08:05.1"]), ("\n", ["0000:08:05.1"])] as [(String, [String])]
    )
    func functionsThatAreResetTogether(_ methods: String, _ companions: [String]) throws {
        let kernel = try FakeKernel()
        for name in ["0000:08:05.0", "0000:08:05.1", "0000:08:06.0"] {
            try kernel.plug(name, below: ["0000:00:1c.0"], ["reset_method": methods])
        }
        let card = try kernel.tree.device(address("0000:08:05.0"))
        #expect(try kernel.tree.companions(of: card).map { "\($0.address)" } == companions)
    }

    @Test func membersOfAGroup() throws {
        let kernel = try FakeKernel()
        for (name, group) in [("0000:00:1c.0", 7), ("0000:08:05.0", 7), ("0000:09:00.0", 7), ("0000:0a:00.0", 8)] {
            try kernel.plug(name, ["class": name == "0000:00:1c.0" ? "0x060400\n" : "0x020000\n"])
            try kernel.link(name, "iommu_group", "groups/\(group)")
        }
        let card = try kernel.tree.device(address("0000:08:05.0"))
        #expect(card.group == 7)
        #expect(try kernel.tree.companions(of: card).map { "\($0.address)" } == ["0000:09:00.0"])
    }
}

@Suite struct PCICapabilityTests {
    @Test func aChain() throws {
        var bytes = SampleSpace.space([0x40: 1, 0x50: 5, 0x60: 0x10], count: 4096)
        bytes.replaceSubrange(0x100..<0x104, with: [0x01, 0x00, 0x02, 0x14])
        bytes.replaceSubrange(0x140..<0x144, with: [0x10, 0x00, 0x01, 0x00])
        bytes.replaceSubrange(0x148..<0x14C, with: [1, 2, 3, 4])
        let space = PCIConfigurationBytes(bytes)
        #expect(space.capabilities.map(\.id) == [1, 5, 0x10, 1, 0x10])
        #expect(space.capabilities.map(\.offset) == [0x40, 0x50, 0x60, 0x100, 0x140])
        #expect(space.capabilities.map(\.isExtended) == [false, false, false, true, true])
        #expect(space.capabilities[4].control == 0x0403_0201 && space.capabilities[1].header == 0x6005)
        #expect(space.isPresent && space.headerType == 0 && space.interruptPin == 0)
    }

    /// Without CAP_SYS_ADMIN sysfs shows 64 bytes; a card that is gone is all ones.
    @Test func whatIsMissing() {
        #expect(PCIConfigurationBytes(Array(SampleSpace.express.prefix(64))).capabilities.isEmpty)
        #expect(PCIConfigurationBytes([]).capabilities.isEmpty && !PCIConfigurationBytes([]).isPresent)
        #expect(PCIConfigurationBytes([]).headerType == nil && PCIConfigurationBytes([]).interruptPin == nil)
        let gone = PCIConfigurationBytes([UInt8](repeating: 0xFF, count: 4096))
        #expect(!gone.isPresent && gone.capabilities.isEmpty)
    }

    @Test func loopsEnd() {
        var bytes = SampleSpace.space([0x40: 1, 0x50: 5], count: 4096)
        bytes[0x51] = 0x40
        bytes.replaceSubrange(0x100..<0x104, with: [0x01, 0x00, 0x02, 0x10])
        #expect(PCIConfigurationBytes(bytes).capabilities.map(\.offset) == [0x40, 0x50, 0x100])
        bytes[0x51] = 0x10
        #expect(PCIConfigurationBytes(bytes).capabilities.map(\.offset) == [0x40, 0x50, 0x100])
        bytes[6] = 0
        #expect(PCIConfigurationBytes(bytes).capabilities.map(\.offset) == [0x100])
    }

    /// Any bytes: an end, and nothing outside.
    @Test func garbage() {
        var state: UInt64 = 88_172_645_463_325_252
        for _ in 0..<300 {
            let bytes = (0..<4096).map { _ in
                state ^= state << 13
                state ^= state >> 7
                state ^= state << 17
                return UInt8(truncatingIfNeeded: state)
            }
            for count in [64, 256, 257, 4096] {
                let found = PCIConfigurationBytes(Array(bytes.prefix(count))).capabilities
                #expect(found.allSatisfy { $0.offset >= 0x40 && $0.offset + 4 <= count })
                #expect(Set(found.map(\.offset)).count == found.count)
            }
        }
    }
}
