// The configuration file: defaults, every key, and errors with their place.

import Foundation
import Logging
import SystemPackage
import Testing

@testable import BackendServer

@Suite struct ConfigurationTests {
    private static func read(_ text: String) throws(ConfigurationError) -> Configuration {
        try Configuration(toml: text, file: "x.toml")
    }

    @Test func anEmptyFileIsTheDefault() throws {
        #expect(try Self.read("") == Configuration())
        #expect(try Self.read("# nothing\n\n[block]\n[net]\n[usb]\n") == Configuration())
        #expect(try ReadSettings(fileIfPresent: "/nonexistent/xenbackd.toml").configuration == Configuration())
        #expect(throws: ConfigurationError.self) { try Configuration(file: "/nonexistent/xenbackd.toml") }
    }

    /// The file that is installed: as it is it sets nothing, and what it calls the defaults are the defaults.
    @Test func theInstalledFileTellsTheTruth() throws {
        let file = URL(fileURLWithPath: #filePath)
            .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("systemd/xenbackd.toml")
        let text = try String(contentsOf: file, encoding: .utf8)
        #expect(try Self.read(text) == Configuration())
        let settings = text.split(separator: "\n").map { line in
            line.wholeMatch(of: /#([a-z-]+ = .+)/).map { String($0.1) } ?? String(line)
        }
        var expected = Configuration()
        expected.runDirectory = "/run/xenbackd"
        // "As many as the host has processors, at most 4."
        expected.dataLoops = 4
        // In domain 0.
        expected.block.vbd = .script
        expected.block.queues = 4
        // "As many as the host has processors, at most 8."
        expected.net.queues = 8
        // "A quarter of this domain's memory."
        expected.grants.hostPages = 65536
        #expect(try Self.read(settings.joined(separator: "\n")) == expected)
    }

    @Test func everyKeyIsRead() throws {
        let text = """
            run-directory = "/run/other"
            log-level = "debug"
            data-loops = 2
            [block]
            vbd = "none"
            qdisk = true
            kernel-vbd = "bind"
            queues = 16
            ring-page-order = 0
            persistent-grants = false
            [net]
            vif = false
            queues = 1
            native-setup = "always"
            vhost = true
            [usb]
            vusb = true
            qusb = true
            [pci]
            pci = false
            hide = ["08:05.0", "nonsense"]
            [kernel]
            bind = ["pci", "vif"]
            autoprobe = "off"
            [grants]
            guest-pages = 64
            host-pages = 1024
            """
        let read = try Self.read(text)
        var expected = Configuration()
        expected.runDirectory = "/run/other"
        expected.logLevel = .debug
        expected.dataLoops = 2
        expected.block.vbd = Configuration.OwnVbd.none
        expected.block.qdisk = true
        expected.pci.pci = false
        // What makes no sense is said when it is used: it keeps nothing from starting.
        expected.pci.hide = ["08:05.0", "nonsense"]
        // kernel-vbd is the older name of one of them.
        expected.kernel.bind = [.pci, .vif, .vbd]
        expected.kernel.autoprobe = .off
        expected.block.queues = 16
        expected.net.vif = false
        expected.net.queues = 1
        expected.net.nativeSetup = .always
        expected.net.vhost = true
        expected.usb.qusb = true
        expected.grants.guestPages = 64
        expected.grants.hostPages = 1024
        expected.block.ringPageOrder = 0
        expected.block.persistentGrants = false
        #expect(read == expected)
    }

    @Test(arguments: [
        // Syntax.
        ("log-level = ", "x.toml:1:", "rror"), ("[block\nqdisk = true\n", "x.toml:", "rror"),
        ("[block]\nqdisk = true\nqdisk = false\n", "x.toml:3:", "rror"),
        // Unknown keys, with a suggestion where one is near.
        ("\n  log-levle = \"info\"\n", "x.toml:2:3: ", "unknown key 'log-levle'; did you mean 'log-level'?"),
        ("[block]\n\tqdsk = true\n", "x.toml:2:2: ", "unknown key 'block.qdsk'; did you mean 'qdisk'?"),
        ("[block]\nfrobnicate = 1\n", "x.toml:2:1: ", "unknown key 'block.frobnicate'; known here: kernel-vbd, "),
        ("[pci]\nhide = \"08:05.0\"\n", "x.toml:2:1: ", "hide must be an array of strings, not a string"),
        ("[pci]\nhide = [\"08:05.0\", 7]\n", "x.toml:2:1: ", "hide must be an array of strings, not an array"),
        ("[pci]\nlayout = \"bus\"\n", "x.toml:2:1: ", "layout"),
        ("[pci]\nquirks = [\"8086:10d3\"]\n", "x.toml:2:1: ", "'8086:10d3' is no quirk"),
        ("[pci]\nquirks = [\"8086:10d3 e1:2:ff\"]\n", "x.toml:2:1: ", "is no quirk"),
        ("[pci]\nquirks = [\"+086:10d3 e0:2:ff\"]\n", "x.toml:2:1: ", "is no quirk"),
        ("[kernel]\nbind = [\"vusb\"]\n", "x.toml:2:1: ", "bind may hold \"vbd\", \"vif\", \"pci\", not \"vusb\""),
        ("[kernel]\nautoprobe = \"on\"\n", "x.toml:2:1: ", "autoprobe must be \"leave\" or \"off\", not \"on\""),
        ("[kernel]\nbind = [\"pci\"]\n", "x.toml:1:1: ", "[pci] pci = true takes every PCI card"),
        ("[kernel]\nbind = [\"vif\"]\n", "x.toml:1:1: ", "[net] vif = true takes every network card"),
        ("[block]\nvbd = \"all\"\n[kernel]\nbind = [\"vbd\"]\n", "x.toml:3:1: ", "takes every disk"),
        ("[network]\n", "x.toml:1:1: ", "unknown key 'network'"),
        ("[block.more]\nx = 1\n", "x.toml:1:1: ", "unknown key 'block.more'"),
        ("# x\r\n[block]\r\nqdsk = true\r\n", "x.toml:3:1: ", "unknown key 'block.qdsk'; did you mean 'qdisk'?"),
        ("block.\"vdb\" = \"all\"\n", "x.toml:1:1: ", "unknown key 'block.vdb'; did you mean 'vbd'?"),
        // Types.
        ("data-loops = \"2\"\n", "x.toml:1:1: ", "data-loops must be a whole number from 1 to 64, not a string"),
        ("data-loops = 2.0\n", "x.toml:1:1: ", "not a fraction"),
        ("log-level = 3\n", "x.toml:1:1: ", "not a whole number"),
        ("block = 3\n", "x.toml:1:1: ", "block must be a table ([block]), not a whole number"),
        ("[block]\nqdisk = 1\n", "x.toml:2:1: ", "qdisk must be true or false, not a whole number"),
        ("[block]\nqdisk = \"yes\"\n", "x.toml:2:1: ", "qdisk must be true or false, not a string"),
        ("[[block]]\nqdisk = true\n", "x.toml:1:1: ", "block must be a table ([block]), not an array"),
        ("log-level = 2026-11-22\n", "x.toml:1:1: ", "not a date or time"),
        // Values.
        ("log-level = \"loud\"\n", "x.toml:1:1: ", "\"error\" or \"critical\", not \"loud\""),
        ("data-loops = 0\n", "x.toml:1:1: ", "from 1 to 64, not 0"),
        ("data-loops = 9223372036854775807\n", "x.toml:1:1: ", "from 1 to 64, not 9223372036854775807"),
        ("run-directory = \"run\"\n", "x.toml:1:1: ", "must be an absolute path, not \"run\""),
        ("[block]\nqueues = 17\n", "x.toml:2:1: ", "queues must be a whole number from 1 to 16, not 17"),
        ("[block]\nring-page-order = -1\n", "x.toml:2:1: ", "from 0 to 4, not -1"),
        ("[usb]\nvusb = false\nqusb = true\n", "x.toml:2:1: ", "qusb = true serves vusb too"),
        ("[usb]\nqusb = \"yes\"\n", "x.toml:2:1: ", "qusb must be true or false, not a string"),
        ("[block]\nvbd = \"some\"\n", "x.toml:2:1: ", "vbd must be \"script\", \"all\" or \"none\", not \"some\""),
        ("[net]\nqueues = 0\n", "x.toml:2:1: ", "queues must be a whole number from 1 to 16, not 0"),
        (
            "[grants]\nguest-pages = 63\n", "x.toml:2:1: ",
            "guest-pages must be a whole number from 64 to 1048576, not 63"
        ),
        ("[net]\nvif = \"all\"\n", "x.toml:2:1: ", "vif must be true or false, not a string"),
        ("[net]\nnative-setup = true\n", "x.toml:2:1: ", "\"always\" or \"never\", not true or false"),
        ("[block]\nvbd = \"all\"\nkernel-vbd = \"bind\"\n", "x.toml:3:1: ", "nothing is left to bind"),
    ])
    func refuses(_ text: String, _ place: String, _ reason: String) {
        do throws(ConfigurationError) {
            let read = try Self.read(text)
            Issue.record("read as \(read)")
        } catch {
            #expect(error.description.hasPrefix(place), "\(error)")
            #expect(error.description.contains(reason), "\(error)")
        }
    }

    /// Every cut of a good file is read or refused with a reason.
    @Test func noPrefixTraps() {
        let text = Array("a.b = 1\n[block] # x\n\"qdisk\" = true\nx = [1, {b = 2}]\nvbd = '''a\nb'''\n".utf8)
        for cut in 0...text.count {
            let part = String(decoding: text[..<cut], as: UTF8.self)
            do throws(ConfigurationError) { _ = try Self.read(part) } catch { #expect(!error.reason.isEmpty) }
        }
    }
}
