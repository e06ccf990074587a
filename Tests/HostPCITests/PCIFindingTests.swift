// Every point that can stand in a card's way.

import HostIO
import HostPCI
import Testing

@Suite struct PCIFindingTests {
    private func findings(_ kernel: FakeKernel, _ name: String = "0000:08:05.0") throws -> [String: PCIFinding] {
        let found = try kernel.stub().findings(on: address(name))
        return Dictionary(uniqueKeysWithValues: found.map { ($0.subject, $0) })
    }

    private func host(_ changes: [String: String?] = [:]) throws -> FakeKernel {
        let kernel = try FakeKernel()
        try kernel.plug("0000:08:05.0", below: ["0000:00:1c.0"], changes)
        try kernel.load("pciback")
        return kernel
    }

    @Test func aCardThatCanBeGivenAway() throws {
        let kernel = try host()
        try kernel.stub().hide(address("0000:08:05.0"))
        let found = try kernel.stub().findings(on: address("0000:08:05.0"))
        #expect(found.map(\.subject) == ["driver", "presence", "windows", "reset", "interrupts"])
        #expect(found.allSatisfy { $0.verdict == .good })
        #expect(found[3].text == "flr, bus" && found[4].text == "MSI-X, MSI")
    }

    @Test func drivers() throws {
        let kernel = try host()
        let free = try findings(kernel)["driver"]
        #expect(
            free?.verdict == .obstacle && free?.text.contains("any may take it; xenback pci-assignable-add") == true
        )
        try kernel.load("e1000e", for: "0000:08:05.0")
        let used = try findings(kernel)["driver"]
        #expect(used?.verdict == .obstacle && used?.text.hasPrefix("the host uses it with e1000e; ") == true)
    }

    @Test func aCardThatDoesNotAnswer() throws {
        let kernel = try host()
        try kernel.configure("0000:08:05.0", [UInt8](repeating: 0xFF, count: 256))
        #expect(try findings(kernel)["presence"]?.verdict == .obstacle)
    }

    @Test func windowsWithoutAddresses() throws {
        let kernel = try host([
            "resource": """
            0x00000000f7a00000 0x00000000f7a1ffff 0x0000000000040200
            0x0000000000000000 0x000000000001ffff 0x0000000020040200
            0x0000000000000000 0x000000000000001f 0x0000000010040101

            """
        ])
        let finding = try findings(kernel)["windows"]
        #expect(finding?.verdict == .obstacle && finding?.text.hasPrefix("BAR 1, 2 has no address") == true)
    }

    @Test(
        arguments: [
            ("flr\n", .good, "flr"), ("bus\n", .warning, "bus: perhaps of everything on its bus"),
            ("\n", .warning, "there is none: the next guest finds it as the last one left it"),
        ] as [(String, PCIFinding.Verdict, String)]
    )
    func resets(_ methods: String, _ verdict: PCIFinding.Verdict, _ text: String) throws {
        let finding = try findings(host(["reset_method": methods]))["reset"]
        #expect(finding?.verdict == verdict && finding?.text == text)
    }

    @Test func companions() throws {
        let kernel = try host(["reset_method": "bus\n"])
        for name in ["0000:08:05.1", "0000:08:05.2"] {
            try kernel.plug(name, below: ["0000:00:1c.0"], ["reset_method": "bus\n"])
        }
        try kernel.stub().hide(address("0000:08:05.1"))
        var finding = try findings(kernel)["companions"]
        #expect(finding?.verdict == .obstacle)
        #expect(
            finding?.text
                == "the same guest must have 0000:08:05.1, 0000:08:05.2; xenback pci-assignable-add 0000:08:05.2 first"
        )
        try kernel.stub().hide(address("0000:08:05.2"))
        finding = try findings(kernel)["companions"]
        #expect(finding?.verdict == .warning && finding?.text == "the same guest must have 0000:08:05.1, 0000:08:05.2")
    }

    @Test func bridgesScreensAndVirtualFunctions() throws {
        let kernel = try host(["boot_vga": "1\n"])
        #expect(try findings(kernel)["screen"]?.verdict == .warning)
        try kernel.plug("0000:08:10.0")
        try kernel.link("0000:08:05.0", "virtfn0", "0000:08:10.0")
        #expect(try findings(kernel)["functions"]?.verdict == .obstacle)
        try kernel.plug("0000:00:1c.0", ["class": "0x060400\n"])
        #expect(try findings(kernel, "0000:00:1c.0").keys.sorted() == ["kind"])
        #expect(
            failure { () throws(HostFailure) in try kernel.stub().findings(on: PCIBusAddress("0000:09:00.0")!) } != nil
        )
    }
}
