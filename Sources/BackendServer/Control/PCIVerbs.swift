// The broker's verbs for PCI: cards hidden from the host and given back, and whether one can be given to a guest.

internal import ControlProtocol
internal import HostIO
internal import HostPCI
internal import Hypervisor
internal import Logging
internal import SystemPackage
internal import XenWire

extension BrokerVerbs {
    func addPCIVerbs(to dispatch: inout ControlDispatch) {
        dispatch.on(PCIListAssignable.self) { _ throws(ControlError) in
            PCIListAssignable.Reply(cards: try await assignableCards())
        }
        dispatch.on(PCIAssignableAdd.self) { call throws(ControlError) in
            let (stub, card, name) = try self.card(call.card)
            let driver = try await self.blocking { () throws(HostFailure) in try stub.hide(name) }
            broker.log.notice("\(card) is hidden from the host\(driver.map { "; it was \($0)'s" } ?? "")")
            return PCIAssignableAdd.Reply(card: try await shown(name, stub))
        }
        dispatch.on(PCIReset.self) { call throws(ControlError) in
            let (stub, card, name) = try self.card(call.card)
            try await reset(card, name, stub)
            return PCIReset.Reply(card: try await shown(name, stub))
        }
        dispatch.on(PCIAssignableRemove.self) { call throws(ControlError) in
            let (stub, card, name) = try self.card(call.card)
            try await reset(card, name, stub)
            let rebinds = call.rebind ?? false
            let driver = try await self.blocking { () throws(HostFailure) in try stub.unhide(name, rebinds: rebinds) }
            broker.log.notice("\(card) is the host's again\(driver.map { ", with \($0)" } ?? ", without a driver")")
            return PCIAssignableRemove.Reply(card: try await shown(name, stub))
        }
        dispatch.on(PCICheck.self) { call throws(ControlError) in
            let guest: DomainID? = if let text = call.domain { try await domain(text) } else { nil }
            return try await check(call.card, for: guest)
        }
        addPCIGuestVerbs(to: &dispatch)
    }

    /// Makes a card nobody's: what a guest left in it is not the host's to find. Nothing happens to one that the stub does not have.
    private func reset(_ card: PCIAddress, _ name: PCIBusAddress, _ stub: PCIStub) async throws(ControlError) {
        if let objection = try await cardAssignments().objection(to: card) { throw .deviceFailed(reason: objection) }
        let locks = broker.setting.run.pciLocks
        try await blocking { () throws(HostFailure) in
            guard try stub.tree.device(name).driver == stub.name else { return }
            let host = KernelPCIHost(stub, locks: locks)
            _ = try host.take(name, owner: "the host", isTakeover: false).finish()
        }
    }

    /// The stub, and a card in the words of both sides.
    /// - Throws: `.notSupported` where the host's cards are not ours to give, `.deviceFailed` for what is no address.
    func card(_ text: String) throws(ControlError) -> (PCIStub, PCIAddress, PCIBusAddress) {
        let stub = try pciStub()
        do throws(PCITextFault) {
            let card = try PCIAddress(parsing: text)
            guard let name = PCIBusAddress("\(card)") else { throw .form(text) }
            return (stub, card, name)
        } catch {
            throw .deviceFailed(reason: "\(error)")
        }
    }

    func pciStub() throws(ControlError) -> PCIStub {
        guard let stub = broker.setting.pciStub else {
            throw .notSupported(reason: "PCI cards are not given away here: this is a simulation")
        }
        return stub
    }

    /// sysfs may wait for drivers and devices: never on the loop.
    func blocking<Value: Sendable>(
        _ work: @escaping @Sendable () throws(HostFailure) -> Value
    ) async throws(ControlError) -> Value {
        do throws(HostFailure) {
            return try await broker.loop.blocking(work)
        } catch {
            throw .deviceFailed(reason: error.text)
        }
    }

    func cardAssignments() async throws(ControlError) -> PCIAssignments {
        do throws(HypervisorFailure) {
            return try await store.perform { (store) throws(HypervisorFailure) in
                try PCIAssignments.read(store)
            }
        } catch {
            throw .deviceFailed(reason: "XenStore does not answer: \(error)")
        }
    }

    private func assignableCards() async throws(ControlError) -> [PCIDevice] {
        let stub = try pciStub()
        let held = try await cardAssignments().holders
        let cards = try await blocking { () throws(HostFailure) in
            try stub.hidden().map { PCIDevice($0, original: stub.remembered($0.address)) }
        }
        return cards.filter { card in (try? PCIAddress(parsing: card.address)).map { held[$0] == nil } ?? false }
    }

    func shown(_ name: PCIBusAddress, _ stub: PCIStub) async throws(ControlError) -> PCIDevice {
        try await blocking { () throws(HostFailure) in
            PCIDevice(try stub.tree.device(name), original: stub.remembered(name))
        }
    }

    // MARK: the check

    func check(_ text: String, for domain: DomainID?) async throws(ControlError) -> PCICheck.Reply {
        let (stub, card, name) = try self.card(text)
        let tables = broker.setting.firmwareTables
        var findings = try await blocking { () throws(HostFailure) in
            try stub.findings(on: name).map { ControlProtocol.PCIFinding($0) } + [.iommu(seenIn: tables)]
        }
        let assignments = try await cardAssignments()
        if let objection = assignments.objection(to: card) {
            findings.append(ControlProtocol.PCIFinding(.obstacle, "owner", objection))
        } else {
            findings.append(ControlProtocol.PCIFinding(.good, "owner", "no guest has it"))
        }
        if let domain {
            let type = (try? await store.read("/libxl/\(domain)/type")) ?? nil
            findings.append(.guest(domain, type: type))
        }
        let line = "pci = ['\(card)']"
        return PCICheck.Reply(card: try await shown(name, stub), findings: findings, line: line)
    }
}

extension PCIDevice {
    init(_ facts: PCIDeviceFacts, original: String?) {
        self.init(
            address: "\(facts.address)",
            vendor: Int(facts.vendor),
            product: Int(facts.product),
            deviceClass: Int(facts.classCode),
            driver: facts.driver,
            originalDriver: original
        )
    }
}

extension ControlProtocol.PCIFinding {
    init(_ finding: HostPCI.PCIFinding) { self.init(finding.verdict, finding.subject, finding.text) }

    init(_ verdict: HostPCI.PCIFinding.Verdict, _ subject: String, _ text: String) {
        self.init(verdict: verdict.rawValue, subject: subject, text: text)
    }

    /// Xen's IOMMU, as far as the firmware's tables tell: Intel's, which Xen renames so that its domain 0 leaves the unit
    /// alone (xen/drivers/passthrough/vtd/dmar.c, `acpi_dmar_zap`), or AMD's. Whether Xen uses it only xl can say.
    static func iommu(seenIn tables: FilePath) -> ControlProtocol.PCIFinding {
        let names = (try? Files.names(in: tables)) ?? []
        if let name = names.sorted().first(where: { ["DMAR", "RMAD", "IVRS"].contains($0) }) {
            return ControlProtocol.PCIFinding(.good, "iommu", "the firmware describes one (\(name))")
        }
        let text =
            "the firmware's tables show none; without one xl gives no cards away (xl info: virt_caps must name hvm_directio"
            + " or pv_directio): look for VT-d or AMD-Vi in the firmware's setup"
        return ControlProtocol.PCIFinding(.warning, "iommu", text)
    }

    /// What kind of guest it is (`/libxl/<domid>/type`, libxl_dom.c) decides how it would get the card.
    static func guest(_ domain: DomainID, type: String?) -> ControlProtocol.PCIFinding {
        switch type {
        case "pv": ControlProtocol.PCIFinding(.good, "guest", "domain \(domain) is PV: its pcifront finds the card")
        case "hvm":
            ControlProtocol.PCIFinding(
                .warning,
                "guest",
                "domain \(domain) is HVM: its device model passes the card on"
            )
        case "pvh":
            ControlProtocol.PCIFinding(
                .obstacle,
                "guest",
                "domain \(domain) is PVH: Xen gives such guests no cards yet"
            )
        default:
            ControlProtocol.PCIFinding(
                .warning,
                "guest",
                "what kind of guest domain \(domain) is, its toolstack does not say"
            )
        }
    }
}
