// Addresses, lines, hide lists and keys of PCI: what is read, and what each mistake is called.

import Testing
import XenWire

/// What a text is refused with; nil if it is taken.
private func fault<T>(_ body: () throws(PCITextFault) -> T) -> PCITextFault? {
    do throws(PCITextFault) {
        _ = try body()
        return nil
    } catch {
        return error
    }
}

@Suite struct PCIAddresses {
    @Test(
        arguments: [
            ("08:05.0", "0000:08:05.0"), ("0000:08:05.0", "0000:08:05.0"), ("8:5.0", "0000:08:05.0"),
            ("ffff:ff:1f.7", "ffff:ff:1f.7"), ("A:B.1", "0000:0a:0b.1"),
        ] as [(String, String)]
    )
    func areRead(_ text: String, _ printed: String) throws {
        let address = try PCIAddress(parsing: text)
        #expect(address.description == printed)
        #expect(try PCIAddress(parsing: printed) == address)
        #expect(try PCIAddress(key: address.virtualKey) == address)
    }

    @Test(
        arguments: [
            ("", .form("")), ("08", .form("08")), ("08:05", .form("08:05")), ("08.05.0", .form("08.05.0")),
            ("08:05.", .form("08:05.")), ("08:.0", .form("08:.0")), (":05.0", .form(":05.0")),
            (" 08:05.0", .form(" 08:05.0")),
            ("08:05.0 ", .form("08:05.0 ")), ("+8:05.0", .form("+8:05.0")), ("0x8:05.0", .form("0x8:05.0")),
            ("0:0:08:05.0", .form("0:0:08:05.0")), ("08:05.00", .form("08:05.00")), ("08:005.0", .form("08:005.0")),
            ("g8:05.0", .form("g8:05.0")), ("10000:08:05.0", .segment("10000:08:05.0")), ("100:05.0", .bus("100:05.0")),
            ("08:20.0", .device("08:20.0")), ("08:05.8", .function("08:05.8")),
            ("08:*.0", .functionOfEveryDevice("08:*.0")),
            ("08:05.*", .wildcard("08:05.*")), ("08:*.*", .wildcard("08:*.*")), ("٠٨:05.0", .form("٠٨:05.0")),
        ] as [(String, PCITextFault)]
    )
    func areRefused(_ text: String, _ expected: PCITextFault) {
        #expect(fault { () throws(PCITextFault) in try PCIAddress(parsing: text) } == expected)
    }

    @Test func numbersOfAnOperation() {
        #expect(PCIAddress(domain: 0, bus: 0, devfn: 8)?.description == "0000:00:01.0")
        #expect(PCIAddress(domain: 0xFFFF, bus: 0xFF, devfn: 0xFF)?.description == "ffff:ff:1f.7")
        #expect(PCIAddress(domain: 0x1_0000, bus: 0, devfn: 0) == nil)
        #expect(PCIAddress(domain: 0, bus: 256, devfn: 0) == nil)
        #expect(PCIAddress(domain: 0, bus: 0, devfn: 256) == nil)
        #expect(PCIAddress(bus: 0, device: 32, function: 0) == nil && PCIAddress(bus: 0, device: 0, function: 8) == nil)
    }

    @Test func patterns() throws {
        let card = PCIAddress(bus: 8, device: 5, function: 3)!
        let sibling = PCIAddress(bus: 8, device: 5, function: 4)!
        let neighbour = PCIAddress(bus: 8, device: 6, function: 3)!
        let table: [(String, [Bool], String)] = [
            ("08:05.3", [true, false, false], "0000:08:05.3"), ("08:05.*", [true, true, false], "0000:08:05.*"),
            ("08:*.*", [true, true, true], "0000:08:*.*"), ("0001:08:05.3", [false, false, false], "0001:08:05.3"),
            ("09:05.*", [false, false, false], "0000:09:05.*"),
        ]
        for (text, expected, printed) in table {
            let pattern = try PCIAddressPattern(parsing: text)
            #expect([card, sibling, neighbour].map { pattern.matches($0) } == expected, "\(text)")
            #expect(pattern.description == printed)
        }
        #expect(PCIAddressPattern(card).address == card && card.sharesDevice(with: sibling))
        #expect(!card.sharesDevice(with: neighbour) && card < sibling && sibling < neighbour)
    }
}

@Suite struct PCIDeviceLines {
    @Test func allForms() throws {
        var line = try PCIDeviceLine(parsing: "08:05.0")
        #expect(line.card.address == PCIAddress(bus: 8, device: 5, function: 0) && line.virtualSlot == nil)
        #expect(line.options == PCIOptions() && !line.seize && line.name == nil)

        line = try PCIDeviceLine(parsing: "08:05.0,msitranslate=1,power_mgmt=0,permissive=1")
        #expect(line.options.translatesMSI && line.options.permissive && !line.options.powerManagement)
        #expect(line.options.description == "msitranslate=1,power_mgmt=0,permissive=1,rdm_policy=relaxed")

        line = try PCIDeviceLine(parsing: "08:05.*")
        #expect(line.card.address == nil && line.card.device == 5)

        line = try PCIDeviceLine(parsing: "0000:08:05.0@10, rdm_policy=strict,seize=1,name=card")
        #expect(line.virtualSlot == 0x10 && line.options.reservedMemory == .strict && line.seize && line.name == "card")
        #expect(try PCIDeviceLine(parsing: "bdf=36:00.0,vslot=1f").virtualSlot == 0x1F)
    }

    @Test(
        arguments: [
            ("", .form("")), ("permissive=1", .form("permissive=1")), ("08:*.*", .wildcard("08:*.*")),
            ("08:05.0@", .virtualSlot("08:05.0@")), ("08:05.0@20", .virtualSlot("08:05.0@20")),
            ("08:05.0@1@2", .form("08:05.0@1@2")), ("08:05.0,", .option("", line: "08:05.0,")),
            ("08:05.0,quick=1", .option("quick", line: "08:05.0,quick=1")),
            ("08:05.0,permissive", .option("permissive", line: "08:05.0,permissive")),
            ("08:05.0,permissive=2", .value("2", of: "permissive", line: "08:05.0,permissive=2")),
            ("08:05.0,seize=yes", .value("yes", of: "seize", line: "08:05.0,seize=yes")),
            ("08:05.0,rdm_policy=none", .value("none", of: "rdm_policy", line: "08:05.0,rdm_policy=none")),
            (
                "08:05.0,permissive=1,permissive=0",
                .repeated("permissive", line: "08:05.0,permissive=1,permissive=0")
            ), ("08:05.0@1,vslot=2", .repeated("vslot", line: "08:05.0@1,vslot=2")),
        ] as [(String, PCITextFault)]
    )
    func areRefused(_ text: String, _ expected: PCITextFault) {
        #expect(fault { () throws(PCITextFault) in try PCIDeviceLine(parsing: text) } == expected)
    }

    /// A later toolstack may know more options than we do; one that we know must make sense.
    @Test func optionsOfAToolstack() throws {
        let options = try PCIOptions(key: "msitranslate=0,power_mgmt=1,permissive=1,rdm_policy=strict,later=7")
        #expect(options.powerManagement && options.permissive && options.reservedMemory == .strict)
        #expect(try PCIOptions(key: options.description) == options && PCIOptions(key: "") == PCIOptions())
        for text in ["permissive", "permissive=", "permissive=2", "rdm_policy=x"] {
            #expect(fault { () throws(PCITextFault) in try PCIOptions(key: text) } != nil, "\(text)")
        }
    }
}

@Suite struct PCIHideLists {
    @Test(
        arguments: [
            ("", [], 0), ("(08:05.0)", ["0000:08:05.0"], 0),
            ("(08:05.0)(0001:09:00.*)", ["0000:08:05.0", "0001:09:00.*"], 0),
            (" (08:05.0) (08:06.0) ", ["0000:08:05.0", "0000:08:06.0"], 0), ("(08:*.*)", ["0000:08:*.*"], 0),
            ("(08:05.0)(08:05.0)", ["0000:08:05.0"], 0),
            ("(08:05.0)(zz)(09:00.0)", ["0000:08:05.0", "0000:09:00.0"], 1),
            ("08:05.0", [], 1), ("08:05.0(09:00.0)", ["0000:09:00.0"], 1), ("(08:05.0", [], 1),
            ("(08:05.0))", ["0000:08:05.0"], 1),
            ("()", [], 1), ("((08:05.0))", [], 2),
        ] as [(String, [String], Int)]
    )
    func parameter(_ text: String, _ cards: [String], _ faults: Int) {
        let list = PCIHideList(text)
        #expect(list.cards.map(\.description) == cards)
        #expect(list.faults.count == faults, "\(list.faults)")
    }

    @Test(
        arguments: [
            ("root=/dev/sda1 xen-pciback.hide=(08:05.0)(09:00.*) ro", ["0000:08:05.0", "0000:09:00.*"]),
            ("xen_pciback.hide=(08:05.0)\n", ["0000:08:05.0"]), ("pciback.hide=(08:05.0)", ["0000:08:05.0"]),
            ("xen-pciback.hide=\"(08:05.0) (09:00.0)\" quiet", ["0000:08:05.0", "0000:09:00.0"]),
            ("\"xen-pciback.hide=(08:05.0) (09:00.0)\" quiet", ["0000:08:05.0", "0000:09:00.0"]),
            ("xen-pciback.hide=(08:05.0) xen-pciback.hide=(09:00.0)", ["0000:09:00.0"]),
            ("pciback.hide=(08:05.0) xen-pciback.hide=(09:00.0)", ["0000:09:00.0", "0000:08:05.0"]),
            ("xen-pciback.hidden=(08:05.0) hide=(08:06.0) pciback.permissive", []), ("", []),
        ] as [(String, [String])]
    )
    func commandLine(_ text: String, _ cards: [String]) {
        let list = PCIHideList(commandLine: text)
        #expect(list.cards.map(\.description) == cards && list.faults.isEmpty)
    }

    @Test func matches() {
        let list = PCIHideList(commandLine: "xen-pciback.hide=(08:05.*)(09:*.*)(bad)")
        #expect(
            list.hides(PCIAddress(bus: 8, device: 5, function: 7)!)
                && list.hides(PCIAddress(bus: 9, deviceFunction: 0xFF))
        )
        #expect(!list.hides(PCIAddress(bus: 8, device: 6, function: 0)!) && list.faults == [.form("bad")])
    }
}

@Suite struct PCIKeyTests {
    private let keys = [
        "num_devs": "2", "dev-0": "0000:08:05.0", "key-0": "0000:08:05.0", "opts-0": "permissive=1", "state-0": "3",
        "vdev-0": "0000:00:00.00", "dev-1": "0000:08:05.1", "state-1": "1",
    ]

    private func list(_ changes: [String: String?] = [:]) throws(PCITextFault) -> [PCIDeviceEntry] {
        var keys = keys
        for (key, value) in changes { keys[key] = value }
        return try PCIDeviceEntry.list { keys[$0] }
    }

    @Test func aList() throws {
        let entries = try list()
        #expect(entries.map(\.address.description) == ["0000:08:05.0", "0000:08:05.1"])
        #expect(entries[0].options.permissive && !entries[1].options.permissive)
        #expect(entries.map(\.state) == [.initialised, .initialising] && entries.map(\.index) == [0, 1])
        #expect(entries[0].virtualAddress == PCIAddress(bus: 0, deviceFunction: 0) && entries[1].virtualAddress == nil)
        #expect(try list(["state-1": nil])[1].state == .unknown && list(["num_devs": "0"]).isEmpty)
    }

    @Test func wrongOnes() {
        let table: [(String, String?, PCITextFault)] = [
            ("num_devs", nil, .key("num_devs", value: nil)), ("num_devs", "-1", .key("num_devs", value: "-1")),
            ("num_devs", "257", .key("num_devs", value: "257")), ("num_devs", "3", .key("dev-2", value: nil)),
            ("dev-1", nil, .key("dev-1", value: nil)), ("dev-1", "08:05", .form("08:05")),
            ("dev-1", "0000:08:05.0", .sameCard("0000:08:05.0", "dev-0", "dev-1")),
            ("dev-1", "10000:08:05.1", .segment("10000:08:05.1")), ("state-0", "9", .key("state-0", value: "9")),
            ("vdev-0", "x", .form("x")),
            ("opts-0", "permissive=x", .value("x", of: "permissive", line: "permissive=x")),
        ]
        for (key, value, expected) in table {
            #expect(fault { () throws(PCITextFault) in try list([key: value]) } == expected, "\(key)")
        }
    }

    @Test func roots() throws {
        #expect(try PCIRoot(key: "0000:08") == PCIRoot(segment: 0, bus: 8))
        #expect(PCIRoot(segment: 1, bus: 0x1F).description == "0001:1f")
        for text in ["", "0000", "0000:08:05", "0000:100", "x:08"] {
            #expect(fault { () throws(PCITextFault) in try PCIRoot(key: text) } == .key("root", value: text))
        }
    }

    /// Every fault says what to do, or at least what was read.
    @Test func texts() {
        #expect("\(PCITextFault.form("x"))".contains("08:05.0") && "\(PCITextFault.segment("x"))".contains("four"))
        #expect(
            "\(PCITextFault.value("x", of: "rdm_policy", line: "l"))" == "'l': rdm_policy is strict or relaxed, not 'x'"
        )
        #expect("\(PCITextFault.value("2", of: "seize", line: "l"))" == "'l': seize is 0 or 1, not '2'")
        #expect("\(PCITextFault.sameCard("c", "dev-0", "dev-1"))" == "dev-0 and dev-1 are both c")
        #expect("\(PCITextFault.key("num_devs", value: nil))" == "num_devs is missing")
    }
}
