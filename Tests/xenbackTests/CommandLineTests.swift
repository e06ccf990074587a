// The program as a person runs it, against a daemon that has its answers ready.

import ControlProtocol
import Foundation
import HostIO
import SystemPackage
import Testing

@Suite struct CommandLineTests {
    /// Listens on a socket and answers every call of a method with the same bytes.
    private final class Daemon: @unchecked Sendable {
        let path = FilePath("/tmp/xenback-\(UUID().uuidString.prefix(8))")
        private let answers: [String: [UInt8]]
        private let lock = NSLock()
        private var seen: [String] = []

        /// - Parameter after: seconds until it listens.
        init(_ answers: [String: [UInt8]], after: Double = 0) throws {
            self.answers = answers
            let first = after == 0 ? try UnixSocket.listen(at: path) : nil
            Thread.detachNewThread { [self] in
                Thread.sleep(forTimeInterval: after)
                guard let listener = try? first ?? UnixSocket.listen(at: path) else { return }
                let deadline = ContinuousClock.now + .seconds(20)
                while ContinuousClock.now < deadline {
                    guard (try? UnixSocket.wait(for: listener, milliseconds: 100)) == true else { continue }
                    guard let socket = try? UnixSocket.accept(from: listener, nonBlocking: false) else { break }
                    try? serve(socket)
                    try? socket.close()
                }
            }
        }

        deinit { try? FileManager.default.removeItem(atPath: path.string) }

        var calls: [String] { lock.withLock { seen } }

        private func serve(_ socket: FileDescriptor) throws {
            var connection = ControlConnection()
            while let bytes = try UnixSocket.receive(from: socket), !bytes.isEmpty {
                connection.receive(bytes)
                while case .answer(let call) = connection.next() {
                    lock.withLock { seen.append(String(decoding: call.message, as: UTF8.self)) }
                    let answer = answers[call.method] ?? ControlMessage.reply(.methodNotFound(call.method))
                    _ = try UnixSocket.send(answer[...], to: socket)
                }
            }
        }
    }

    private static func run(_ daemon: Daemon?, _ words: String...) throws -> (status: Int32, out: String, err: String) {
        try run(daemon, words)
    }

    private static func run(
        _ daemon: Daemon?,
        _ words: [String],
        path: String? = nil
    ) throws -> (status: Int32, out: String, err: String) {
        let process = Process()
        let folder = try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")
        process.executableURL = URL(fileURLWithPath: folder).deletingLastPathComponent()
            .appendingPathComponent("xenback")
        process.arguments = words
        process.environment = ["XENBACK_SOCKET": daemon?.path.string ?? "/nonexistent/control"]
        if let path { process.environment?["PATH"] = path }
        let (out, err) = (Pipe(), Pipe())
        process.standardOutput = out
        process.standardError = err
        try process.run()
        let texts = [out, err].map { String(decoding: $0.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self) }
        process.waitUntilExit()
        return (process.terminationStatus, texts[0], texts[1])
    }

    private static let device = Device(
        path: "backend/vbd/7/51712",
        kind: "vbd",
        domain: 7,
        domainName: "web1",
        index: 51712,
        node: "xvda",
        backendState: "connected",
        frontendState: "connected",
        phase: "serving",
        worker: 4711
    )

    @Test func listAsTextAndAsJSON() throws {
        let daemon = try Daemon([List.method: ControlMessage.reply(List.Reply(devices: [Self.device]))])
        let text = try Self.run(daemon, "list")
        #expect(text.status == 0 && text.err.isEmpty)
        #expect(
            text.out.hasSuffix("\n7       web1  xvda    vbd   connected  connected  4711    serving\n"),
            "\(text.out)"
        )
        let json = try Self.run(daemon, "list", "--json")
        let decoded = try JSONDecoder().decode(List.Reply.self, from: Data(json.out.utf8))
        #expect(json.status == 0 && decoded.devices == [Self.device])
    }

    @Test func wordsOfADiskLineAreJoined() throws {
        let daemon = try Daemon([BlockAttach.method: ControlMessage.reply(BlockAttach.Reply(device: Self.device))])
        let done = try Self.run(daemon, "block-attach", "web1", "vdev=xvda", "access=ro", "target=/a b.img")
        #expect(done.status == 0 && done.out == "attached xvda as backend/vbd/7/51712\n")
        let call = daemon.calls.first ?? ""
        #expect(
            call.contains(#""parameters":{"disk":"vdev=xvda,access=ro,target=/a b.img","domain":"web1"}"#),
            "\(call)"
        )
    }

    @Test func aBadDiskLineDoesNotReachTheDaemon() throws {
        let daemon = try Daemon([:])
        let refused = try Self.run(daemon, "block-attach", "web1", "/a.img,raw,xvdA")
        #expect(refused.status == 1 && refused.out.isEmpty)
        #expect(refused.err.hasSuffix("\n  /a.img,raw,xvdA\n             ^\n"), "\(refused.err)")
        #expect(daemon.calls.isEmpty)
    }

    @Test func oldScriptsForUSBRun() throws {
        let stick = USBDevice(bus: "1-1", vendor: 0x781, product: 0x5567, name: "Stick", speed: "high")
        let controller = Device(
            path: "backend/vusb/7/0",
            kind: "vusb",
            domain: 7,
            index: 0,
            backendState: "connected",
            frontendState: "connected",
            phase: "serving"
        )
        let daemon = try Daemon([
            USBListAssignable.method: ControlMessage.reply(USBListAssignable.Reply(devices: [stick])),
            USBList.method: ControlMessage.reply(
                USBList.Reply(controllers: [
                    USBController(
                        device: controller,
                        backend: 0,
                        version: 2,
                        ports: [.init(number: 1, wanted: "1-1", device: stick)]
                    )
                ])
            ),
            USBControllerCreate.method: ControlMessage.reply(USBControllerCreate.Reply(device: controller)),
            USBControllerDestroy.method: ControlMessage.reply(NoParameters()),
            USBAttach.method: ControlMessage.reply(
                USBAttach.Reply(port: .init(number: 3, wanted: "1-1", device: stick))
            ),
            USBDetach.method: ControlMessage.reply(NoParameters()),
        ])
        #expect(try Self.run(daemon, "usb-list-assignable-devices").out == "1-1          : ID 0781:5567 Stick\n")
        #expect(try Self.run(daemon, "usb-list", "web1").out.hasSuffix("\nport 1: 1-1 [ID 0781:5567 Stick]\n"))
        let created = "created USB controller 0 as backend/vusb/7/0\n"
        #expect(try Self.run(daemon, "usb-hc-create", "web1", "2", "8").out == created)
        #expect(try Self.run(daemon, "usb-hc-create", "web1", "usbver=2, numports=8, port_1=1-1").out == created)
        #expect(try Self.run(daemon, "usb-hc-create", "web1", "usbver=1", "port_1=1-1").out == created)
        #expect(
            try Self.run(daemon, "usb-attach", "web1", "0", "3", "1-1").out
                == "attached 1-1 (ID 0781:5567 Stick) to port 3\n"
        )
        #expect(try Self.run(daemon, "usb-detach", "web1", "0", "3").out == "detached what was in port 3\n")
        #expect(try Self.run(daemon, "usb-hc-destroy", "web1", "0").out == "destroyed USB controller 0\n")
        let parameters = [
            "{}", #"{"domain":"web1"}"#, #"{"controller":"usbver=2, numports=8","domain":"web1"}"#,
            #"{"controller":"usbver=2, numports=8, port_1=1-1","domain":"web1"}"#,
            #"{"controller":"usbver=1,port_1=1-1","domain":"web1"}"#,
            #"{"bus":"1-1","device":"0","domain":"web1","port":3}"#, #"{"device":"0","domain":"web1","port":3}"#,
            #"{"device":"0","domain":"web1"}"#,
        ]
        #expect(daemon.calls.count == parameters.count)
        for (call, text) in zip(daemon.calls, parameters) {
            #expect(call.contains(#""parameters":\#(text)"#), "\(call)")
        }
    }

    @Test func cards() throws {
        let card = PCIDevice(
            address: "0000:08:05.0",
            vendor: 0x8086,
            product: 0x10D3,
            deviceClass: 0x02_0000,
            driver: "pciback",
            originalDriver: "e1000e"
        )
        let good = PCIFinding(verdict: "good", subject: "reset", text: "flr")
        let line = "pci = ['0000:08:05.0']"
        let answers = [
            PCIListAssignable.method: ControlMessage.reply(PCIListAssignable.Reply(cards: [card])),
            PCIAssignableAdd.method: ControlMessage.reply(PCIAssignableAdd.Reply(card: card)),
            PCIAssignableRemove.method: ControlMessage.reply(PCIAssignableRemove.Reply(card: card)),
            PCIReset.method: ControlMessage.reply(PCIReset.Reply(card: card)),
            PCICheck.method: ControlMessage.reply(PCICheck.Reply(card: card, findings: [good], line: line)),
        ]
        let daemon = try Daemon(answers)
        #expect(try Self.run(daemon, "pci-assignable-list").out == "0000:08:05.0\n")
        #expect(try Self.run(daemon, "pci-list-assignable-devices").out == "0000:08:05.0\n")
        let hidden = "0000:08:05.0 is hidden; it was e1000e's\n"
        #expect(try Self.run(daemon, "pci-assignable-add", "08:05.0").out == hidden)
        #expect(try Self.run(daemon, "pci-assignable-remove", "-r", "08:05.0").out.hasSuffix("; pciback has it\n"))
        _ = try Self.run(daemon, "pci-assignable-remove", "08:05.0")
        let checked = try Self.run(daemon, "pci-check", "08:05.0", "web1")
        #expect(checked.status == 0 && checked.out.hasSuffix("\npci = ['0000:08:05.0']\n"))
        let parameters = [
            "{}", "{}", #"{"card":"08:05.0"}"#, #"{"card":"08:05.0"}"#, #"{"card":"08:05.0","rebind":true}"#,
            #"{"card":"08:05.0"}"#, #"{"card":"08:05.0"}"#, #"{"card":"08:05.0","domain":"web1"}"#,
        ]
        #expect(daemon.calls.count == parameters.count)
        for (call, text) in zip(daemon.calls, parameters) {
            #expect(call.contains(#""parameters":\#(text)"#), "\(call)")
        }
        // What stands in the way is the exit status, as text and as JSON.
        let bad = PCIFinding(verdict: "obstacle", subject: "driver", text: "the host uses it")
        let other = try Daemon([
            PCICheck.method: ControlMessage.reply(PCICheck.Reply(card: card, findings: [good, bad], line: line))
        ])
        #expect(try Self.run(other, "pci-check", "08:05.0").status == 1)
        let json = try Self.run(other, "pci-check", "08:05.0", "--json")
        let decoded = try JSONDecoder().decode(PCICheck.Reply.self, from: Data(json.out.utf8))
        #expect(json.status == 1 && decoded.findings == [good, bad] && json.err.isEmpty)
    }

    private static let hidden = PCIDevice(
        address: "0000:08:05.0",
        vendor: 0x8086,
        product: 0xD3,
        deviceClass: 0x02_0000
    )

    /// xl of the test: it says what it was told, and ends as its second word says.
    private static func xl(_ body: String = "echo \"$0 $@\" | sed 's|.*/||'") throws -> URL {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("xl-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        let file = folder.appendingPathComponent("xl")
        try Data("#!/bin/sh\nPATH=/usr/bin:/bin\n\(body)\n".utf8).write(to: file)
        try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: file.path)
        return folder
    }

    @Test func cardsAreAttachedByXl() throws {
        func answer(_ verdict: String) throws -> Daemon {
            let finding = PCIFinding(verdict: verdict, subject: "reset", text: "there is none")
            let check = PCICheck.Reply(card: Self.hidden, findings: [finding], line: "")
            let reply = PCIPrepare.Reply(domain: 7, checks: [check], line: "08:05.0,permissive=1")
            return try Daemon([PCIPrepare.method: ControlMessage.reply(reply)])
        }
        let xl = try Self.xl()
        defer { try? FileManager.default.removeItem(at: xl) }
        let daemon = try answer("warning")
        let words = ["pci-attach", "web1", "08:05.0,permissive=1,seize=1", "10"]
        let done = try Self.run(daemon, words, path: "/nonexistent:\(xl.path)")
        #expect(done.status == 0 && done.out == "xl pci-attach 7 08:05.0,permissive=1\n", "\(done)")
        #expect(done.err == "0000:08:05.0: warning: there is none\n")
        let told = #""parameters":{"domain":"web1","line":"08:05.0,permissive=1,seize=1,vslot=10"}"#
        #expect(daemon.calls.first?.contains(told) == true, "\(daemon.calls)")
        // What stands in the way keeps xl from being asked.
        let refused = try Self.run(try answer("obstacle"), words, path: xl.path)
        #expect(refused.status == 1 && refused.out.isEmpty && refused.err.contains("it cannot be given away like this"))
        // xl's own words and status.
        let failing = try Self.xl("echo 'libxl: error' >&2; exit 3")
        defer { try? FileManager.default.removeItem(at: failing) }
        let failed = try Self.run(try answer("good"), words, path: failing.path)
        #expect(failed.status == 3 && failed.err == "libxl: error\n")
        let killed = try Self.xl("kill -9 $$")
        defer { try? FileManager.default.removeItem(at: killed) }
        #expect(try Self.run(try answer("good"), words, path: killed.path).err == "xenback: xl killed by signal 9\n")
        #expect(try Self.run(try answer("good"), words, path: "/nonexistent").err.contains("there is no xl in $PATH"))
    }

    /// Xen's quarantine ends between the reset and the host's driver; that of a card that was in none does not end, and nobody is told.
    @Test(arguments: [0, 3]) func quarantinesAreEndedByXl(_ status: Int) throws {
        let log = FileManager.default.temporaryDirectory.appendingPathComponent("xl-\(UUID().uuidString).log")
        let xl = try Self.xl("echo \"$@\" >>\(log.path); echo 'libxl: error' >&2; exit \(status)")
        defer { for file in [xl, log] { try? FileManager.default.removeItem(at: file) } }
        let daemon = try Daemon([
            PCIReset.method: ControlMessage.reply(PCIReset.Reply(card: Self.hidden)),
            PCIAssignableRemove.method: ControlMessage.reply(PCIAssignableRemove.Reply(card: Self.hidden)),
        ])
        let done = try Self.run(daemon, ["pci-assignable-remove", "08:05.0"], path: xl.path)
        #expect(done.status == 0 && done.err.isEmpty, "\(done)")
        #expect(try String(contentsOf: log, encoding: .utf8) == "pci-assignable-remove 0000:08:05.0\n")
        #expect(daemon.calls.count == 2 && daemon.calls[0].contains("PCIReset"), "\(daemon.calls)")
        // What may not be reset may not leave its quarantine.
        let refusing = try Daemon([PCIReset.method: ControlMessage.reply(ControlError.deviceFailed(reason: "no"))])
        #expect(try Self.run(refusing, ["pci-assignable-remove", "08:05.0"], path: xl.path).status == 1)
        #expect(try String(contentsOf: log, encoding: .utf8).split(separator: "\n").count == 1)
    }

    @Test func cardsAreDetachedByXl() throws {
        let card = PCIAssignedCard(address: "0000:08:05.0", state: "initialised", options: "permissive=0")
        let xl = try Self.xl()
        defer { try? FileManager.default.removeItem(at: xl) }
        let answers = [PCIList.method: ControlMessage.reply(PCIList.Reply(cards: [card]))]
        let daemon = try Daemon(answers)
        #expect(try Self.run(daemon, "pci-list", "web1").out.contains("0000:08:05.0  gone  initialised"))
        let done = try Self.run(daemon, ["pci-detach", "web1", "08:05.0"], path: xl.path)
        #expect(done.status == 0 && done.out == "xl pci-detach web1 0000:08:05.0\n", "\(done)")
        let forced = try Self.run(daemon, ["pci-detach", "-f", "web1", "0000:08:05.0"], path: xl.path)
        #expect(forced.out == "xl pci-detach -f web1 0000:08:05.0\n")
        let other = try Self.run(daemon, ["pci-detach", "web1", "09:00.0"], path: xl.path)
        #expect(other.status == 1 && other.out.isEmpty)
        #expect(other.err.hasSuffix("has no card '09:00.0'; it has 0000:08:05.0\n"))
    }

    @Test func virtualFunctions() throws {
        let function = PCIVirtualFunction(index: 0, card: Self.hidden)
        let reply = PCIVirtualFunctions.Reply(card: Self.hidden, limit: 8, functions: [function])
        let daemon = try Daemon([
            PCIVirtualFunctions.method: ControlMessage.reply(reply),
            PCIVirtualFunctionSet.method: ControlMessage.reply(reply),
        ])
        #expect(try Self.run(daemon, "pci-vf", "08:05.0").out.hasPrefix("0000:08:05.0: 1 of 8 virtual functions\n"))
        _ = try Self.run(daemon, "pci-vf", "08:05.0", "--count", "1")
        let settings = ["--mac", "00:16:3e:00:00:01", "--vlan", "10", "--spoof-check", "on", "--trust", "off"]
        #expect(try Self.run(daemon, ["pci-vf", "08:05.0", "0"] + settings).status == 0)
        let parameters = [
            #"{"card":"08:05.0"}"#, #"{"card":"08:05.0","count":1}"#,
            #"{"address":"00:16:3e:00:00:01","card":"08:05.0","index":0,"spoofCheck":true,"trust":false,"vlan":10}"#,
        ]
        for (call, text) in zip(daemon.calls, parameters) {
            #expect(call.contains(#""parameters":\#(text)"#), "\(call)")
        }
        for words in [["--mac", "00:16:3e:00:00:01"], ["0"], ["0", "--count", "1"], ["0", "--trust", "yes"]] {
            #expect(try Self.run(daemon, ["pci-vf", "08:05.0"] + words).status == 64, "\(words)")
        }
        #expect(daemon.calls.count == parameters.count)
    }

    @Test func badUSBLinesDoNotReachTheDaemon() throws {
        let daemon = try Daemon([:])
        let line = try Self.run(daemon, "usb-hc-create", "web1", "usbver=2, numports=32")
        #expect(
            line.status == 1 && line.err.hasSuffix("\n  usbver=2, numports=32\n                     ^\n"),
            "\(line)"
        )
        #expect(try Self.run(daemon, "usb-hc-create", "web1", "3", "8").err.contains("USB 1.1 or 2.0"))
        for words in [["web1", "2"], ["web1", "2", "8", "9"], ["web1"]] {
            #expect(try Self.run(daemon, ["usb-hc-create"] + words).status == 64, "\(words)")
        }
        #expect(try Self.run(daemon, "usb-attach", "web1", "0", "one", "1-1").status == 64)
        #expect(daemon.calls.isEmpty)
    }

    @Test func everyVerbCallsItsMethod() throws {
        let daemon = try Daemon([
            Show.method: ControlMessage.reply(Show.Reply(reports: [Report(device: Self.device)])),
            BlockList.method: ControlMessage.reply(BlockList.Reply(disks: [])),
            BlockDetach.method: ControlMessage.reply(NoParameters()),
            MediaEject.method: ControlMessage.reply(NoParameters()),
            MediaInsert.method: ControlMessage.reply(NoParameters()),
            Hotplug.method: ControlMessage.reply(NoParameters()),
            BlockResize.method: ControlMessage.reply(BlockResize.Reply(sectors: 8)),
            GetVersion.method: ControlMessage.reply(GetVersion.Reply(version: "9.9", process: 3)),
        ])
        #expect(
            try Self.run(daemon, "show", "web1", "xvda").out.hasPrefix("xvda\n  device        backend/vbd/7/51712\n")
        )
        #expect(try Self.run(daemon, "block-list", "7").out == "no disks\n")
        #expect(try Self.run(daemon, "block-detach", "7", "xvda", "--force").out == "detached xvda\n")
        #expect(try Self.run(daemon, "block-resize", "7", "xvda").out == "xvda has 8 sectors of 512 bytes now\n")
        #expect(try Self.run(daemon, "cd-insert", "7", "hdc", "/a.iso").out == "inserted /a.iso into hdc\n")
        #expect(try Self.run(daemon, "cd-eject", "7", "hdc").out == "ejected hdc\n")
        #expect(try Self.run(daemon, "hotplug", "block", "add", "backend/vbd/7/51712").status == 0)
        #expect(try Self.run(daemon, "version").out.hasSuffix("\nxenbackd 9.9 (process 3)\n"))
        #expect(daemon.calls.count == 8)
        #expect(daemon.calls.contains { $0.contains(#""device":"xvda","domain":"7","force":true"#) })
    }

    @Test func netchannel2CardsByWordsAndByLines() throws {
        var device = Self.device
        (device.path, device.kind, device.index, device.node) = ("backend/vif2/7/0", "vif2", 0, nil)
        var vif = device
        (vif.path, vif.kind) = ("backend/vif/7/0", "vif")
        let daemon = try Daemon([
            Network2Attach.method: ControlMessage.reply(Network2Attach.Reply(device: device)),
            Network2Detach.method: ControlMessage.reply(NoParameters()),
            NetworkList.method: ControlMessage.reply(
                NetworkList.Reply(cards: [
                    NetworkCard(device: vif, CardFacts()), NetworkCard(device: device, CardFacts()),
                ])
            ),
        ])
        let attached = "attached netchannel2 card 0 as backend/vif2/7/0\n"
        #expect(try Self.run(daemon, "network2-attach", "web1").out == attached)
        #expect(try Self.run(daemon, "network2-attach", "web1", "bridge=eth1", "mtu=9000").out == attached)
        #expect(try Self.run(daemon, "network2-attach", "web1", "bridge=eth1, filter_mac=0").out == attached)
        #expect(try Self.run(daemon, "network2-detach", "web1", "0").out == "detached netchannel2 card 0\n")
        let list = try Self.run(daemon, "network2-list", "web1").out
        #expect(list.split(separator: "\n").count == 2 && list.contains("vif2/0") && !list.contains("vif/0"))
        let parameters = [
            #"{"card":"","domain":"web1"}"#, #"{"card":"bridge=eth1,mtu=9000","domain":"web1"}"#,
            #"{"card":"bridge=eth1, filter_mac=0","domain":"web1"}"#, #"{"device":"0","domain":"web1"}"#,
        ]
        for (call, text) in zip(daemon.calls, parameters) {
            #expect(call.contains(#""parameters":\#(text)"#), "\(call)")
        }
        let wrong = try Self.run(daemon, "network2-attach", "web1", "bridge=eth1", "mtu=9")
        #expect(wrong.status == 1 && wrong.err.hasSuffix("\n  bridge=eth1,mtu=9\n                  ^\n"), "\(wrong)")
        #expect(daemon.calls.count == 5)
    }

    @Test func errorsAreWordsAndAStatus() throws {
        let daemon = try Daemon([
            Show.method: ControlMessage.reply(ControlError.noSuchDomain("web1")),
            Hotplug.method: ControlMessage.reply(
                ControlError.deviceFailed(reason: "/a.img: No such file or directory")
            ),
        ])
        let show = try Self.run(daemon, "show", "web1")
        #expect(show.status == 1 && show.out.isEmpty && show.err.hasPrefix("xenback: no domain 'web1'"))
        let hotplug = try Self.run(daemon, "hotplug", "block", "add", "backend/vbd/7/51712")
        #expect(hotplug.status == 1 && hotplug.err == "/a.img: No such file or directory\n")
        let nobody = try Self.run(nil, "list")
        #expect(nobody.status == 1 && nobody.err.contains("systemctl start xenbackd"))
        #expect(try Self.run(daemon, "frobnicate").status == 64)
        #expect(try Self.run(daemon, "hotplug", "block", "online", "x").status == 64)
    }

    @Test func theHotplugVerbOutlivesARestartOfTheDaemon() throws {
        let daemon = try Daemon([Hotplug.method: ControlMessage.reply(NoParameters())], after: 1)
        #expect(try Self.run(daemon, "hotplug", "block", "add", "backend/vbd/7/51712").status == 0)
        #expect(daemon.calls.count == 1)
        let never = try Self.run(nil, "hotplug", "--timeout", "1", "block", "remove", "backend/vbd/7/51712")
        #expect(never.status == 1 && never.err.contains("xenbackd is not running"))
    }
}
