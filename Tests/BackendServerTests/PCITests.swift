// Cards hidden, listed, checked and given back over the control socket's verbs, on a sysfs in a folder.

import BackendCore
import Foundation
import HostIO
import HostPCI
import Hypervisor
import Logging
import SimulatedHypervisor
import Synchronization
import SystemPackage
import Testing
import XenWire

@testable import BackendServer
@testable import ControlProtocol

/// Two cards and two drivers. A probe binds the stub where the override names it, a `bind` whichever driver is asked.
private final class FolderOfCards: Sendable {
    let root: URL
    /// Whether cards do not come back from a reset.
    let failsResets = Mutex(false)
    /// As long as there is one, drivers do not let go: the writer waits for it.
    let holdsDrivers = Mutex<DispatchSemaphore?>(nil)
    let resets = Mutex(0)
    /// Writers that wait.
    let waiting = Mutex(0)

    init() throws {
        root = FileManager.default.temporaryDirectory.appendingPathComponent("broker-pci-\(UUID().uuidString)")
        for driver in ["pciback", "e1000e"] { try make("drivers/\(driver)") }
        for card in ["0000:08:05.0", "0000:08:06.0"] {
            let files = [
                "vendor": "0x8086", "device": "0x10d3", "class": "0x020000", "resource": "", "irq": "17",
                "driver_override": "(null)", "reset_method": "flr",
            ]
            try make("devices/\(card)")
            for (name, text) in files { try Data(text.utf8).write(to: file("devices/\(card)/\(name)")) }
            try Data([UInt8](repeating: 0, count: 256)).write(to: file("devices/\(card)/config"))
        }
        bind("0000:08:05.0", "e1000e")
    }

    deinit { try? FileManager.default.removeItem(at: root) }

    /// A card of which there are virtual functions, or may be some.
    func addFunctions(_ addresses: [String], to card: String) throws {
        let directory = file("devices/\(card)")
        try Data("4\n".utf8).write(to: directory.appendingPathComponent("sriov_totalvfs"))
        for (index, address) in addresses.enumerated() {
            try FileManager.default.createSymbolicLink(
                atPath: directory.appendingPathComponent("virtfn\(index)").path,
                withDestinationPath: "../\(address)"
            )
        }
    }

    /// As the toolstack does it, without a word to us.
    func unbind(_ card: String) throws { try FileManager.default.removeItem(at: file("devices/\(card)/driver")) }

    func makeBridge(_ card: String) throws {
        try Data("0x060400\n".utf8).write(to: file("devices/\(card)/class"))
    }

    var stub: PCIStub {
        PCIStub(tree: PCITree(root: FilePath(root.path)), memory: FilePath(file("memory").path)) {
            [self] text, path throws(Errno) in
            switch path.lastComponent?.string {
            case "driver_override": try? Data(text.utf8).write(to: URL(fileURLWithPath: path.string))
            case "reset":
                if failsResets.withLock({ $0 }) { throw .ioError }
                resets.withLock { $0 += 1 }
            case "unbind":
                if let gate = holdsDrivers.withLock({ $0 }) {
                    waiting.withLock { $0 += 1 }
                    gate.wait()
                }
                try? FileManager.default.removeItem(at: file("devices/\(text)/driver"))
            case "bind": bind(text, path.removingLastComponent().lastComponent?.string ?? "")
            default:
                let override = try? String(contentsOf: file("devices/\(text)/driver_override"), encoding: .utf8)
                if override == "pciback" { bind(text, "pciback") }
            }
        }
    }

    private func file(_ path: String) -> URL { root.appendingPathComponent(path) }
    private func make(_ path: String) throws {
        try FileManager.default.createDirectory(at: file(path), withIntermediateDirectories: true)
    }
    private func bind(_ card: String, _ driver: String) {
        let link = file("devices/\(card)/driver").path
        try? FileManager.default.createSymbolicLink(atPath: link, withDestinationPath: "../../drivers/\(driver)")
    }
}

@Suite(.serialized, .timeLimit(.minutes(2)))
struct PCITests {
    private let cards: FolderOfCards
    private let host: SimulatedHost
    private let broker: Broker

    init() throws {
        cards = try FolderOfCards()
        host = try SimulatedHost()
        try host.machine.createDomain(DomainID(7)!)
        var setting = BrokerSetting(run: host.run, workerCommand: { _ in ["/bin/true"] }, build: "this build")
        setting.pciStub = cards.stub
        broker = Broker(
            loop: host.loop,
            hypervisor: host.dom0,
            setting: setting,
            classes: DeviceClasses(all: []),
            log: host.log
        )
    }

    private func call<Verb: ControlVerb>(_ verb: Verb) async throws -> Verb.Reply {
        try await broker.call(verb)
    }

    private func refused<Verb: ControlVerb>(_ verb: Verb, _ reason: String) async throws {
        let error = await #expect(throws: ControlError.self) { try await call(verb) }
        #expect(error?.description.contains(reason) ?? false, "\(error?.description ?? "none"), not: \(reason)")
    }

    /// libxl leaves what xen-pciback served when a guest is gone.
    @Test func whatADeadGuestLeftIsNobodys() async throws {
        _ = try await call(PCIAssignableAdd(card: "08:05.0"))
        try await give("0000:08:05.0", to: 8)
        #expect(try await call(PCIListAssignable()).text == "0000:08:05.0\n")
        let owner = try await call(PCICheck(card: "08:05.0")).findings.first { $0.subject == "owner" }
        #expect(owner?.verdict == "good")
        _ = try await call(PCIAssignableRemove(card: "08:05.0"))
    }

    /// A guest died with its worker, and nobody has reset its card since.
    @Test func aCardInQuarantineIsNotTheHosts() async throws {
        _ = try await call(PCIAssignableAdd(card: "08:05.0"))
        let (stub, card) = (cards.stub, try #require(PCIBusAddress("0000:08:05.0")))
        let kernel = KernelPCIHost(stub, locks: host.run.pciLocks)
        do {
            let held = try kernel.take(card, owner: "backend/pci/7/0", isTakeover: false)
            try await refused(PCIAssignableRemove(card: "08:05.0", rebind: true), "belongs to backend/pci/7/0")
            withExtendedLifetime(held) {}
        }
        cards.failsResets.withLock { $0 = true }
        try await refused(PCIAssignableRemove(card: "08:05.0", rebind: true), "quarantine")
        #expect(try stub.tree.device(card).driver == "pciback")
        cards.failsResets.withLock { $0 = false }
        #expect(try await call(PCIAssignableRemove(card: "08:05.0", rebind: true)).card.driver == "e1000e")
    }

    /// The toolstack takes a card from the stub when it ends the hypervisor's quarantine: before that it is reset, and afterwards the
    /// driver that had it gets it.
    @Test func aCardIsResetThenTheToolstackLetsGoOfIt() async throws {
        _ = try await call(PCIAssignableAdd(card: "08:05.0"))
        let (stub, card) = (cards.stub, try #require(PCIBusAddress("0000:08:05.0")))
        let kernel = KernelPCIHost(stub, locks: host.run.pciLocks)
        _ = try kernel.take(card, owner: "backend/pci/9/0", isTakeover: false)
        let resets = cards.resets.withLock { $0 }
        #expect(try await call(PCIReset(card: "08:05.0")).card.driver == "pciback")
        #expect(cards.resets.withLock { $0 } > resets)
        try cards.unbind("0000:08:05.0")
        let done = cards.resets.withLock { $0 }
        #expect(try await call(PCIAssignableRemove(card: "08:05.0", rebind: true)).card.driver == "e1000e")
        // It is nobody's to reset then.
        #expect(cards.resets.withLock { $0 } == done)
        _ = try await call(PCIAssignableAdd(card: "08:05.0"))
        try await give("0000:08:05.0", to: 7)
        try await refused(PCIReset(card: "08:05.0"), "belongs to domain 7")
    }

    /// A driver that does not let go is the caller's to wait for, and nobody else's.
    @Test func aKernelThatHangsHoldsNobodyElseUp() async throws {
        let gate = DispatchSemaphore(value: 0)
        cards.holdsDrivers.withLock { $0 = gate }
        let hiding = Task { try await call(PCIAssignableAdd(card: "08:05.0")).card.driver }
        try await eventually("the driver is asked to let go") { cards.waiting.withLock { $0 } == 1 }
        #expect(try await call(PCIList(domain: "7")).cards.isEmpty)
        #expect(try await call(PCICheck(card: "08:06.0")).card.address == "0000:08:06.0")
        cards.holdsDrivers.withLock { $0 = nil }
        gate.signal()
        #expect(try await hiding.value == "pciback")
    }

    /// `[kernel] autoprobe = "off"` and `bind = ["pci"]`.
    @Test func cardsThatAreTheKernelsToServe() async throws {
        let bus = FileManager.default.temporaryDirectory.appendingPathComponent("bus-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: bus) }
        let driver = bus.appendingPathComponent("drivers/xen-pciback")
        try FileManager.default.createDirectory(at: driver, withIntermediateDirectories: true)
        let (bind, autoprobe) = (driver.appendingPathComponent("bind"), bus.appendingPathComponent("drivers_autoprobe"))
        try Data().write(to: bind)
        try Data("1\n".utf8).write(to: autoprobe)
        var setting = broker.setting
        setting.kernelBackends = KernelBackends(bus: FilePath(bus.path))
        let kernels = Broker(
            loop: host.loop,
            hypervisor: host.dom0,
            setting: setting,
            classes: DeviceClasses(all: []),
            kernelKinds: [.pci],
            log: host.log
        )
        var configuration = Configuration()
        configuration.kernel.autoprobe = .off
        await kernels.settleHost(configuration)
        #expect(try String(contentsOf: autoprobe, encoding: .utf8).first == "0")
        try await give("0000:08:05.0", to: 7)
        try await host.dom0.store.write("backend/pci/7/0/frontend", "/local/domain/7/device/pci/0")
        let run = Task(executorPreference: host.loop) { await kernels.run() }
        try await eventually("the kernel's driver is given the guest's bus") {
            try String(contentsOf: bind, encoding: .utf8) == "pci-7-0"
        }
        await kernels.stop()
        await run.value
    }

    @Test func theIOMMUIsSeenInTheFirmwaresTables() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("tables-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        let finding = { ControlProtocol.PCIFinding.iommu(seenIn: FilePath(folder.path)) }
        #expect(finding().verdict == "warning")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        for name in ["APIC", "DSDT"] { try Data().write(to: folder.appendingPathComponent(name)) }
        #expect(finding().verdict == "warning" && finding().text.contains("hvm_directio"))
        // What Xen makes of DMAR, so that domain 0 leaves the unit alone.
        try Data().write(to: folder.appendingPathComponent("RMAD"))
        #expect(finding().verdict == "good" && finding().text.contains("RMAD"))
    }

    @Test func theCardsOfAGuest() async throws {
        #expect(try await call(PCIList(domain: "7")).text == "no PCI cards\n")
        try await give("0000:08:05.0", to: 7)
        let new = try await call(PCIList(domain: "7")).cards
        #expect(new.count == 1 && new[0].address == "0000:08:05.0" && new[0].vendor == 0x8086)
        #expect(new[0].server == nil && new[0].virtualAddress == nil && new[0].state == "initialising")
        for (key, value) in [("vdev-0", "0000:00:00.00"), ("state-0", "3"), ("opts-0", "permissive=1")] {
            try await host.dom0.store.write("backend/pci/7/0/\(key)", value)
        }
        let served = try await call(PCIList(domain: "7")).cards.first
        #expect(served?.server == "xenbackd" && served?.virtualAddress == "0000:00:00.0")
        #expect(served?.state == "initialised" && served?.options.contains("permissive=1") == true)
        // One that was pulled out of the host is listed all the same.
        try await give("0000:0a:00.0", to: 7)
        #expect(try await call(PCIList(domain: "7")).text.contains("gone"))
        try await host.dom0.store.write("backend/pci/7/0/num_devs", "many")
        try await refused(PCIList(domain: "7"), "backend/pci/7 makes no sense")
        try await refused(PCIList(domain: "nobody"), "no domain 'nobody'")
    }

    @Test func beforeAGuestGetsACard() async throws {
        try await host.dom0.store.write("/libxl/7/type", "pv")
        let used = try await call(PCIPrepare(domain: "7", line: "08:05.0,permissive=1"))
        #expect(!used.isAssignable && used.warnings.contains("the host uses it with e1000e"))
        // Nothing was taken that nobody allowed to be taken.
        #expect(try await call(PCIListAssignable()).cards.isEmpty)
        let seized = try await call(PCIPrepare(domain: "7", line: "08:05.0,permissive=1,seize=1"))
        #expect(seized.isAssignable && seized.domain == 7 && seized.line == "08:05.0,permissive=1")
        #expect(try await call(PCIListAssignable()).cards.first?.originalDriver == "e1000e")
        let all = try await call(PCIPrepare(domain: "7", line: "seize=1,bdf=08:06.*"))
        #expect(all.checks.map(\.card.address) == ["0000:08:06.0"] && all.line == "bdf=08:06.*")
        for (line, reason) in [
            ("", "is no PCI address"), ("08:05.0,permisive=1", "there is no option 'permisive'"),
            ("08:05.0,permissive=2", "permissive is 0 or 1"), ("0a:00.*", "there is no card 0000:0a:00.*"),
            ("08:*.*", "one function is needed"), ("08:05.0@20", "a virtual slot is 00 … 1f"),
        ] { try await refused(PCIPrepare(domain: "7", line: line), reason) }
    }

    @Test func virtualFunctionsOfGuestsStay() async throws {
        try await refused(PCIVirtualFunctions(card: "08:05.0", count: 1), "has no virtual functions (SR-IOV)")
        try cards.addFunctions(["0000:08:06.0"], to: "0000:08:05.0")
        let reply = try await call(PCIVirtualFunctions(card: "08:05.0"))
        #expect(reply.limit == 4 && reply.functions.map(\.card.address) == ["0000:08:06.0"])
        #expect(reply.functions.first?.domain == nil)
        // The card's driver would take its functions along.
        try await refused(PCIAssignableAdd(card: "08:05.0"), "xenback pci-vf 0000:08:05.0 --count 0 first")
        try await give("0000:08:06.0", to: 7)
        #expect(try await call(PCIVirtualFunctions(card: "08:05.0")).functions.first?.domain == 7)
        for count in [0, 2] {
            try await refused(PCIVirtualFunctions(card: "08:05.0", count: count), "belongs to domain 7")
        }
        try await refused(PCIVirtualFunctions(card: "08:05.0", count: 70000), "count")
        try await refused(PCIVirtualFunctionSet(card: "08:05.0", index: 0, trust: true), "has no network interface")
        try await refused(PCIVirtualFunctionSet(card: "08:05.0", index: 1, trust: true), "1 virtual functions, from 0")
        try await refused(PCIVirtualFunctionSet(card: "08:05.0", index: 0, address: "00:16:3e"), "address")
    }

    @Test func cardsThatAreHiddenAtTheStart() throws {
        var list = PCIHideList("(08:06.0)(zz)")
        list.add(["08:05.*", "0000:0a:00.0", "08:05.0.0"])
        let messages = CardsToHide(list).hide(by: cards.stub)
        let texts = messages.map(\.text)
        // One that a driver has is left to it: the host may run on it.
        #expect(texts.contains { $0.hasPrefix("0000:08:05.0 is not hidden: e1000e has it already; xenback pci-") })
        #expect(texts.contains("0000:08:06.0 is hidden from the host"))
        #expect(texts.contains("not hidden: this host has no card 0000:0a:00.0 (see lspci -D)"))
        #expect(texts.count { $0.hasPrefix("not hidden: '") } == 2 && messages.count == 5)
        #expect(try cards.stub.hidden().map { "\($0.address)" } == ["0000:08:06.0"])
        // Another start finds it as it is.
        #expect(CardsToHide(list).hide(by: cards.stub).contains { $0.level == .info && $0.text.contains("08:06.0") })
    }

    @Test func bridgesAreNotHiddenAtTheStart() throws {
        try cards.makeBridge("0000:08:06.0")
        let messages = CardsToHide(PCIHideList("(08:06.0)")).hide(by: cards.stub)
        #expect(messages.count == 1 && messages[0].level == .warning && messages[0].text.contains("has no card"))
        #expect(CardsToHide(PCIHideList("")).hide(by: cards.stub).isEmpty)
    }

    /// As libxl writes a guest's first card.
    private func give(_ card: String, to domain: Int) async throws {
        let path = "backend/pci/\(domain)/0"
        let keys = [
            "num_devs": "1", "dev-0": card, "key-0": card, "opts-0": "permissive=0", "state-0": "1", "state": "1",
        ]
        for (key, value) in keys { try await host.dom0.store.write("\(path)/\(key)", value) }
    }

    @Test func hideListAndGiveBack() async throws {
        #expect(try await call(PCIListAssignable()).text.isEmpty)
        let hidden = try await call(PCIAssignableAdd(card: "08:05.0")).card
        #expect(hidden.address == "0000:08:05.0" && hidden.driver == "pciback" && hidden.originalDriver == "e1000e")
        #expect(hidden.vendor == 0x8086 && hidden.product == 0x10D3 && hidden.deviceClass == 0x02_0000)
        _ = try await call(PCIAssignableAdd(card: "0000:08:06.0"))
        #expect(try await call(PCIListAssignable()).text == "0000:08:05.0\n0000:08:06.0\n")
        #expect(try await call(PCIAssignableRemove(card: "08:05.0", rebind: true)).card.driver == "e1000e")
        #expect(try await call(PCIAssignableRemove(card: "08:06.0")).card.driver == nil)
        #expect(try await call(PCIListAssignable()).cards.isEmpty)
    }

    @Test func aGuestsCardIsNotTakenBack() async throws {
        for card in ["08:05.0", "08:06.0"] { _ = try await call(PCIAssignableAdd(card: card)) }
        try await give("0000:08:05.0", to: 7)
        #expect(try await call(PCIListAssignable()).text == "0000:08:06.0\n")
        try await refused(PCIAssignableRemove(card: "08:05.0"), "xl pci-detach 7 0000:08:05.0 first")
        // A backend that makes no sense may have any card.
        try await host.dom0.store.write("backend/pci/7/0/num_devs", "many")
        try await refused(PCIAssignableRemove(card: "08:06.0"), "backend/pci/7 makes no sense (num_devs is 'many'")
        try await host.dom0.store.remove("backend/pci/7")
        _ = try await call(PCIAssignableRemove(card: "08:05.0"))
    }

    @Test func theCheck() async throws {
        let used = try await call(PCICheck(card: "08:05.0"))
        #expect(!used.isAssignable && used.line == "pci = ['0000:08:05.0']")
        #expect(used.findings.first { $0.subject == "driver" }?.text.hasPrefix("the host uses it with e1000e") == true)
        _ = try await call(PCIAssignableAdd(card: "08:05.0"))
        for (type, verdict) in [("pv", "good"), ("hvm", "warning"), ("pvh", "obstacle"), ("", "warning")] {
            try await host.dom0.store.write("/libxl/7/type", type)
            let reply = try await call(PCICheck(card: "08:05.0", domain: "7"))
            #expect(reply.findings.first { $0.subject == "guest" }?.verdict == verdict, "\(type)")
            #expect(reply.isAssignable == (type != "pvh"))
        }
        try await give("0000:08:05.0", to: 7)
        let held = try await call(PCICheck(card: "08:05.0")).findings.first { $0.subject == "owner" }
        #expect(held?.verdict == "obstacle" && held?.text.contains("domain 7") == true)
        try await refused(PCICheck(card: "08:05.0", domain: "nobody"), "no domain 'nobody'")
    }

    @Test func badCards() async throws {
        for (card, reason) in [
            ("08:05", "is no PCI address"), ("08:05.*", "one function is needed"),
            ("10000:08:05.0", "four hexadecimal"),
            ("09:00.0", "there is no card 0000:09:00.0"),
        ] {
            try await refused(PCIAssignableAdd(card: card), reason)
            try await refused(PCIAssignableRemove(card: card), reason)
            try await refused(PCICheck(card: card), reason)
        }
    }
}
