// systemd/install into a directory, with the programs of this build.

import ControlProtocol
import Foundation
import Testing

@Suite struct InstallTests {
    private static let root = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    private static func install(_ words: [String]) throws -> (status: Int32, text: String) {
        let process = Process()
        process.executableURL = root.appendingPathComponent("systemd/install")
        process.arguments = words
        let output = Pipe()
        process.standardOutput = output
        process.standardError = output
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        return (process.terminationStatus, text)
    }

    @Test func everythingIsPutInItsPlace() throws {
        let files = FileManager.default
        let target = files.temporaryDirectory.appendingPathComponent("install-\(UUID().uuidString)")
        defer { try? files.removeItem(at: target) }
        let programs = URL(fileURLWithPath: try files.destinationOfSymbolicLink(atPath: "/proc/self/exe"))
            .deletingLastPathComponent().path
        let words = ["--no-strip", "--binaries", programs, target.path]
        let first = try Self.install(words)
        #expect(first.status == 0 && first.text.isEmpty, "\(first.text)")
        func text(_ path: String) throws -> String {
            try String(contentsOf: target.appendingPathComponent(path), encoding: .utf8)
        }
        for path in ["usr/sbin/xenbackd", "usr/sbin/xenback", "etc/xen/scripts/block-xenback"] {
            #expect(files.isExecutableFile(atPath: target.appendingPathComponent(path).path), "\(path)")
        }
        #expect(try text("usr/share/varlink/org.xenback.control.varlink") == ControlInterface.description)
        #expect(try text("usr/lib/systemd/system/xenbackd.service").contains("\nExecStart=/usr/sbin/xenbackd\n"))
        // What crash transparency is promised with (systemd.service(5), systemd.kill(5), systemd.exec(5)).
        let unit = try text("usr/lib/systemd/system/xenbackd.service").split(separator: "\n")
        for line in [
            "OOMPolicy=continue", "KillMode=process", "Restart=always", "RuntimeDirectoryPreserve=yes",
            "FileDescriptorStoreMax=4096",
        ] { #expect(unit.contains { $0 == line }, "\(line)") }
        #expect(try text("usr/share/bash-completion/completions/xenback").contains("block-attach"))
        #expect(try text("usr/share/doc/xenback/xen-blkback.conf").contains("\nblacklist xen-blkback\n"))
        #expect(try text("usr/share/doc/xenback/xen-netback.conf").contains("\nblacklist xen-netback\n"))

        #expect(try text("usr/lib/udev/rules.d/72-xenback-usb.rules").contains("XENBACK_GUEST"))
        #expect(try text("usr/lib/udev/rules.d/60-xenback-pci.rules").contains("xenback-pci-hide $kernel"))
        for path in [
            "usr/lib/udev/xenback-pci-hide", "usr/share/initramfs-tools/hooks/xenback",
            "usr/lib/dracut/modules.d/95xenback/module-setup.sh",
        ] { #expect(files.isExecutableFile(atPath: target.appendingPathComponent(path).path), "\(path)") }
        #expect(try text("usr/share/doc/xenback/xen-pciback.conf").contains("autoprobe"))

        // What the administrator changed stays; what nobody changed is replaced in silence.
        #expect(try Self.install(words).text.isEmpty)
        let settings = target.appendingPathComponent("etc/xenback/xenbackd.toml")
        try Data("[block]\nqdisk = true\n".utf8).write(to: settings)
        let second = try Self.install(words)
        #expect(second.status == 0 && second.text.contains("xenbackd.toml is kept"))
        #expect(try text("etc/xenback/xenbackd.toml") == "[block]\nqdisk = true\n")
        #expect(try text("etc/xenback/xenbackd.toml.new").contains("#qdisk = false"))
    }

    @Test func badCallsInstallNothing() throws {
        #expect(try Self.install(["--frobnicate"]).status == 1)
        #expect(try Self.install(["/tmp/a", "/tmp/b"]).status == 1)
        #expect(try Self.install(["--binaries"]).status == 1)
        #expect(try Self.install(["--help"]).text.hasPrefix("Installs xenback"))
    }

    /// vhd-util by its own name is the same program, and behaves so; blktap's own is not replaced.
    @Test func vhdUtilByItsName() throws {
        let files = FileManager.default
        let target = files.temporaryDirectory.appendingPathComponent("install-\(UUID().uuidString)")
        defer { try? files.removeItem(at: target) }
        let programs = URL(fileURLWithPath: try files.destinationOfSymbolicLink(atPath: "/proc/self/exe"))
            .deletingLastPathComponent().path
        let words = ["--no-strip", "--vhd-util", "--binaries", programs, target.path]
        #expect(try Self.install(words).status == 0)
        let name = target.appendingPathComponent("usr/bin/vhd-util")
        let process = Process()
        process.executableURL = name
        process.arguments = ["query", "-n", target.appendingPathComponent("none.vhd").path, "-v"]
        let output = Pipe()
        process.standardOutput = output
        process.standardError = FileHandle.nullDevice
        try process.run()
        let text = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        #expect(process.terminationStatus == 2 && text.hasSuffix("none.vhd: -2\n"), "\(text)")
        try files.removeItem(at: name)
        try Data("another's".utf8).write(to: name)
        let refused = try Self.install(words)
        #expect(refused.status == 1 && refused.text.contains("is another program"))
    }
}
