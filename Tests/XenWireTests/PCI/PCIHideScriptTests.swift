// The shell script that hides cards at boot says of every card what PCIHideList says: one list has one meaning.

import Foundation
import Testing
import XenWire

@Suite struct PCIHideScriptTests {
    private static let script = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("udev/xenback-pci-hide").path

    /// A root with /proc, /sys and /etc.
    private final class Root {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("pci-hide-\(UUID().uuidString)")

        init(hypervisor: String = "xen") throws {
            try write("sys/hypervisor/type", hypervisor + "\n")
            try write("proc/cmdline", "root=/dev/sda1\n")
            try write("sys/bus/pci/drivers_probe", "")
        }

        deinit { try? FileManager.default.removeItem(at: folder) }

        func write(_ path: String, _ text: String) throws {
            let file = folder.appendingPathComponent(path)
            let manager = FileManager.default
            try manager.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
            try Data(text.utf8).write(to: file)
        }

        func text(_ path: String) throws -> String {
            try String(contentsOf: folder.appendingPathComponent(path), encoding: .utf8)
        }

        func run(_ words: String..., program: String = PCIHideScriptTests.script) throws -> String {
            let process = Process()
            process.executableURL = URL(fileURLWithPath: "/bin/sh")
            process.arguments = [program] + words
            process.environment = ["XENBACK_ROOT": folder.path, "PATH": folder.path]
            let output = Pipe()
            process.standardOutput = output
            process.standardError = output
            try process.run()
            let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
            process.waitUntilExit()
            #expect(process.terminationStatus == 0, "the way up is never kept from going on")
            return text
        }
    }

    private static let cards = ["0000:08:05.0", "0000:08:05.1", "0000:08:1f.7", "0001:08:05.0", "0000:09:00.0"]
    private static let hidden = "XENBACK_PCI_STUB=pciback\n"

    @Test(arguments: [
        "xen-pciback.hide=(08:05.0)", "quiet xen_pciback.hide=(08:05.0)(0000:09:00.*) splash",
        "pciback.hide=(08:*.*)", "pciback.hide=(08:*.0)", "pciback.hide=(0001:08:05.0)",
        "pciback.hide=(00000001:08:5.0)",
        "pciback.hide=(08:05.0) pciback.hide=(09:00.0)", "pciback.hide=(08:05.0) xen-pciback.hide=(09:00.0)",
        "xen-pciback.hide=\"(09:00.0) (08:05.1)\" x", "\"xen-pciback.hide=(09:00.0) (08:05.1)\"",
        "xen-pciback.hide=(zz)(08:05.0)", "xen-pciback.hide=zz(08:05.0)", "xen-pciback.hide=(08:05.0",
        "xen-pciback.hide=((08:05.0)", "xen-pciback.hide=()(08:05.0)", "xen-pciback.hide=08:05.0",
        "xen-pciback.hide=(8:5.0)", "xen-pciback.hide=(08:1F.7)", "xen-pciback.hide=(08:05.8)(08:05.)(08:20.0)",
        "xen-pciback.hide=(+8:05.0)(0x8:05.0)( 08:05.0)(08:05.0 )", "xen-pciback.hide=(100:05.0)(10000:08:05.0)",
        "xen-pciback.hide=(08:05.0.0)(0:0:08:05.0)(08:05)", "xen-pciback.hide=", "hide=(08:05.0)", "",
        "xen-pciback.hidex=(08:05.0)", "xen-pciback.hide=($(rm -rf /))(`id`)(08:05.1)", "xen-pciback.hide=(*:*.*)",
    ])
    func theCommandLine(_ line: String) throws {
        let (root, list) = (try Root(), PCIHideList(commandLine: line))
        try root.write("proc/cmdline", "root=/dev/sda1 \(line)\n")
        for card in Self.cards {
            let wanted = list.hides(try PCIAddress(parsing: card)) ? Self.hidden : ""
            #expect(try root.run(card) == wanted, "\(line): \(card)")
        }
    }

    @Test(arguments: [
        ("[pci]\nhide = [\"08:05.0\"]\n", ["0000:08:05.0"]),
        (
            "# hide\n[pci]\npci = true\nhide = [ # two\n  '08:05.1', # one\n\t\"0000:09:00.*\",\n]\n",
            ["0000:08:05.1", "0000:09:00.0"]
        ),
        ("[pci]\nhide=[\"0001:08:*.*\"]", ["0001:08:05.0"]), ("[pci]\n#hide = [\"08:05.0\"]\n", []),
        ("[net]\nhide = [\"08:05.0\"]\n", []), ("[pci]\nhide = []\n[net]\nx = [\"08:05.0\"]\n", []),
        ("[pci]\nhide = [\"zz\", \"08:1f.7\"]\n", ["0000:08:1f.7"]), ("[pci]\nhide = [\"08:05.0\n", ["0000:08:05.0"]),
        ("]]]][[\"", []),
    ])
    func theSettings(_ text: String, _ wanted: [String]) throws {
        let root = try Root()
        try root.write("etc/xenback/xenbackd.toml", text)
        for card in Self.cards { #expect(try root.run(card) == (wanted.contains(card) ? Self.hidden : ""), "\(card)") }
    }

    /// Without Xen the same host boots with all its cards.
    @Test func onlyUnderXen() throws {
        let root = try Root(hypervisor: "kvm")
        try root.write("proc/cmdline", "xen-pciback.hide=(08:05.0)\n")
        #expect(try root.run("0000:08:05.0").isEmpty)
        try FileManager.default.removeItem(at: root.folder.appendingPathComponent("sys/hypervisor"))
        #expect(try root.run("0000:08:05.0").isEmpty && root.run("--take", "0000:08:05.0").isEmpty)
        #expect(try root.text("sys/bus/pci/drivers_probe").isEmpty)
    }

    @Test(arguments: ["", "x", "0000:08:05", "../../etc", "10000:08:05.0"])
    func whatIsNoCard(_ text: String) throws {
        let root = try Root()
        try root.write("proc/cmdline", "xen-pciback.hide=(08:05.0)\n")
        #expect(try root.run(text).isEmpty)
    }

    /// The stub is asked for a card that nobody has; what a driver has it keeps.
    @Test func taking() throws {
        let root = try Root()
        _ = try root.run("--take", "0000:08:05.0")
        #expect(try root.text("sys/bus/pci/drivers_probe") == "0000:08:05.0\n")
        try root.write("sys/bus/pci/drivers_probe", "")
        try root.write("sys/bus/pci/devices/0000:08:05.0/driver/x", "")
        _ = try root.run("--take", "0000:08:05.0")
        #expect(try root.text("sys/bus/pci/drivers_probe").isEmpty)
    }
}
