// Verbs and errors survive the wire, and the shipped interface file names them all.

import Testing
import XenWire

@testable import ControlProtocol

@Suite struct VerbTests {
    private static let device = Device(
        path: "backend/vbd3/7/51712",
        kind: "vbd3",
        domain: 7,
        domainName: "web \"1\"",
        index: 51712,
        node: "xvda",
        backendState: "connected",
        frontendState: "connected",
        phase: "serving",
        worker: 4711,
        problem: nil
    )

    /// A call as the daemon decodes it, and the daemon's answer as the client decodes it.
    private static func roundTrip<Verb: ControlVerb>(_ verb: Verb, _ reply: Verb.Reply) async throws {
        var dispatch = ControlDispatch(product: "test", version: "1", process: 1)
        dispatch.on(Verb.self) { call throws(ControlError) in
            guard call == verb else { throw .deviceFailed(reason: "other parameters: \(call)") }
            return reply
        }
        let call = try ControlCall(message: ControlMessage.call(verb).dropLast())
        let bytes = try #require(await dispatch.answer(call))
        #expect(try ControlMessage.decodeReply(to: Verb.self, from: bytes.dropLast()) == reply)
    }

    @Test func everyVerbSurvivesTheWire() async throws {
        var report = Report(
            device: Self.device,
            facts: [.init(name: "image", value: "/a/\u{0}ü.img")],
            counters: [.init(name: "reads", value: Int64.max)],
            latencies: [.init(name: "read", buckets: [1, 2, 0])],
            lastFault: "a\nb",
            lastFailure: nil
        )
        let facts = DiskFacts(target: "/a.img", readOnly: false, cdrom: false, sectors: 1 << 40)
        let disk = Disk(device: Self.device, facts)
        report.disk = facts
        report.card = CardFacts()
        report.controller = ControllerFacts(ports: [.init(number: 3, state: .failed, text: "a\nb")])
        try await Self.roundTrip(Ping(), NoParameters())
        try await Self.roundTrip(GetVersion(), .init(version: "1", process: 3))
        try await Self.roundTrip(List(), .init(devices: [Self.device, Self.device]))
        try await Self.roundTrip(Show(domain: "7", device: "xvda"), .init(reports: [report]))
        try await Self.roundTrip(Show(domain: "7"), .init(reports: []))
        try await Self.roundTrip(BlockAttach(domain: "7", disk: "/a b.img,,xvda"), .init(device: Self.device))
        try await Self.roundTrip(BlockDetach(domain: "7", device: "xvda", force: true), NoParameters())
        try await Self.roundTrip(BlockList(domain: "7"), .init(disks: [disk]))
        let card = NetworkCard(device: Self.device, CardFacts())
        try await Self.roundTrip(NetworkList(domain: "7"), .init(cards: [card]))
        try await Self.roundTrip(Network2Attach(domain: "7", card: "bridge=br0"), .init(device: Self.device))
        try await Self.roundTrip(Network2Detach(domain: "7", device: "vif2/0", force: true), NoParameters())
        try await Self.roundTrip(BlockResize(domain: "7", device: "xvda"), .init(sectors: 9))
        try await Self.roundTrip(MediaInsert(domain: "7", device: "hdc", target: "/é.iso"), NoParameters())
        try await Self.roundTrip(MediaEject(domain: "7", device: "hdc"), NoParameters())
        try await Self.roundTrip(Hotplug(path: "backend/vbd/7/51712", event: .remove), NoParameters())
        let stick = USBDevice(bus: "1-1", vendor: 0x781, product: 0x5567, name: "a\nb", speed: "high")
        let port = USBController.Port(number: 1, wanted: "1-1", device: stick)
        let controller = USBController(device: Self.device, backend: 0, version: 2, ports: [port, .init(number: 2)])
        try await Self.roundTrip(USBListAssignable(), .init(devices: [stick]))
        try await Self.roundTrip(USBList(domain: "7"), .init(controllers: [controller]))
        try await Self.roundTrip(USBControllerCreate(domain: "7", controller: "usbver=2"), .init(device: Self.device))
        try await Self.roundTrip(USBControllerDestroy(domain: "7", device: "0", force: true), NoParameters())
        try await Self.roundTrip(USBAttach(domain: "7", device: "0", port: 1, bus: "1-1"), .init(port: port))
        try await Self.roundTrip(USBDetach(domain: "7", device: "0", port: 31), NoParameters())
        let pci = PCIDevice(address: "0000:08:05.0", vendor: 0x8086, product: 0x10D3, deviceClass: 0x02_0000)
        let finding = PCIFinding(verdict: "good", subject: "reset", text: "flr\n")
        try await Self.roundTrip(PCIListAssignable(), .init(cards: [pci]))
        try await Self.roundTrip(PCIAssignableAdd(card: "08:05.0"), .init(card: pci))
        try await Self.roundTrip(PCIReset(card: "08:05.0"), .init(card: pci))
        try await Self.roundTrip(PCIAssignableRemove(card: "08:05.0", rebind: true), .init(card: pci))
        try await Self.roundTrip(
            PCICheck(card: "08:05.0", domain: "7"),
            .init(card: pci, findings: [finding], line: "pci = []")
        )
        let check = PCICheck.Reply(card: pci, findings: [finding], line: "pci = []")
        let assigned = PCIAssignedCard(address: "0000:08:05.0", state: "initialised", options: "permissive=1")
        let function = PCIVirtualFunction(index: 0, card: pci, domain: 7, address: "00:16:3e:00:00:01", trust: false)
        let functions = PCIVirtualFunctions.Reply(card: pci, limit: 8, functions: [function])
        try await Self.roundTrip(PCIList(domain: "7"), .init(cards: [assigned]))
        try await Self.roundTrip(
            PCIPrepare(domain: "7", line: "08:05.0"),
            .init(domain: 7, checks: [check], line: "08:05.0")
        )
        try await Self.roundTrip(PCIVirtualFunctions(card: "08:05.0", count: 4), functions)
        let setting = PCIVirtualFunctionSet(card: "08:05.0", index: 0, vlan: 10, spoofCheck: true)
        try await Self.roundTrip(setting, functions)
        try await Self.roundTrip(GetInfo(), .init(vendor: "v", product: "p", version: "1", url: "", interfaces: ["i"]))
    }

    static let errors: [ControlError] = [
        .noSuchDomain("web"), .noSuchDevice(domain: "7", device: "xvdz"),
        .ambiguousDevice(domain: "7", device: "0", candidates: ["pci/0", "vif/0"]),
        .badDiskLine(reason: "r", position: 3), .badUSBLine(reason: "r", position: 4),
        .deviceFailed(reason: "r"), .timedOut(reason: "r"), .workerUnavailable(reason: "r"), .notSupported(reason: "r"),
        .malformedMessage(reason: "r"), .interfaceNotFound("i"), .methodNotFound("m"), .methodNotImplemented("m"),
        .invalidParameter("p"), .permissionDenied, .expectedMore, .other(name: "org.xenback.control.FromTheFuture"),
    ]

    @Test(arguments: errors) func everyErrorSurvivesTheWire(_ error: ControlError) {
        let message = ControlMessage.reply(error).dropLast()
        #expect(throws: error) { try ControlMessage.decodeReply(to: List.self, from: Array(message)) }
        #expect(!error.description.isEmpty)
    }

    @Test(arguments: ["", "{}", "[]", #"{"parameters":{}}"#, #"{"parameters":{"devices":[{}]}}"#, #"{"error":7}"#])
    func badAnswersAreErrors(_ text: String) {
        do throws(ControlError) {
            _ = try ControlMessage.decodeReply(to: List.self, from: Array(text.utf8))
            Issue.record("no error")
        } catch {
            #expect(error.description.contains("did not understand the message: the answer to List: "))
        }
    }

    @Test func theInterfaceFileNamesEveryVerbAndError() {
        let text = ControlInterface.description
        let verbs: [any ControlVerb.Type] = [
            Ping.self, GetVersion.self, List.self, Show.self, BlockAttach.self, BlockDetach.self, BlockList.self,
            NetworkList.self, Network2Attach.self, Network2Detach.self, BlockResize.self, MediaInsert.self,
            MediaEject.self, Hotplug.self,
            USBListAssignable.self, USBList.self, USBControllerCreate.self, USBControllerDestroy.self, USBAttach.self,
            USBDetach.self, PCIListAssignable.self, PCIAssignableAdd.self, PCIAssignableRemove.self, PCICheck.self,
            PCIReset.self,
            PCIList.self, PCIPrepare.self, PCIVirtualFunctions.self, PCIVirtualFunctionSet.self,
        ]
        #expect(text.contains("\ninterface org.xenback.control\n"))
        for verb in verbs { #expect(text.contains("\nmethod \(verb.name)("), "\(verb.name)") }
        #expect(text.split(separator: "\n").count { $0.hasPrefix("method ") } == verbs.count)
        let names = Self.errors.dropLast().map(\.name).filter { $0.hasPrefix(ControlInterface.name) }
        for name in names { #expect(text.contains("\nerror \(name.split(separator: ".").last ?? "?") ("), "\(name)") }
        #expect(text.split(separator: "\n").count { $0.hasPrefix("error ") } == names.count)
    }

    @Test func theServiceDescribesItself() async throws {
        let dispatch = ControlDispatch(product: "xenbackd", version: "1", process: 1)
        let info = try ControlCall(message: ControlMessage.call(GetInfo()).dropLast())
        let reply = try #require(await dispatch.answer(info))
        let decoded = try ControlMessage.decodeReply(to: GetInfo.self, from: reply.dropLast())
        #expect(decoded.interfaces == ["org.varlink.service", "org.xenback.control"])
        for interface in decoded.interfaces {
            let verb = GetInterfaceDescription(interface: interface)
            let call = try ControlCall(message: ControlMessage.call(verb).dropLast())
            let answer = try #require(await dispatch.answer(call))
            let text = try ControlMessage.decodeReply(to: GetInterfaceDescription.self, from: answer.dropLast())
            #expect(text.description.contains("interface \(interface)\n"))
        }
    }
}
