// The broker's verbs for the cards of guests: which they have, what is needed before they get one, virtual functions.

internal import BackendCore
internal import ControlProtocol
internal import HostIO
internal import HostNetwork
internal import HostPCI
internal import Hypervisor
internal import Logging
internal import XenWire

extension BrokerVerbs {
    func addPCIGuestVerbs(to dispatch: inout ControlDispatch) {
        dispatch.on(PCIList.self) { call throws(ControlError) in
            PCIList.Reply(cards: try await cards(of: try await domain(call.domain)))
        }
        dispatch.on(PCIPrepare.self) { call throws(ControlError) in try await prepare(call) }
        dispatch.on(PCIVirtualFunctions.self) { call throws(ControlError) in try await virtualFunctions(call) }
        dispatch.on(PCIVirtualFunctionSet.self) { call throws(ControlError) in try await set(call) }
    }

    private func cards(of domain: DomainID) async throws(ControlError) -> [PCIAssignedCard] {
        let (stub, assignments) = (try pciStub(), try await cardAssignments())
        if let fault = assignments.unreadable[domain] {
            throw .deviceFailed(reason: "\(DevicePath.folder(of: .pci))/\(domain) makes no sense: \(fault)")
        }
        let kernel = broker.setting.kernelBackends
        let devices = assignments.entries.filter { $0.key.domain == domain }.sorted { $0.key < $1.key }
        return await broker.loop.blocking {
            devices.flatMap { path, entries in
                entries.map { entry in
                    let facts = PCIBusAddress("\(entry.address)").flatMap { stub.tree.facts(of: $0) }
                    return PCIAssignedCard(
                        address: "\(entry.address)",
                        virtualAddress: entry.virtualAddress?.description,
                        state: entry.state.headerName,
                        options: "\(entry.options)",
                        server: entry.virtualAddress == nil ? nil : kernel.has(path) ? "kernel" : "xenbackd",
                        vendor: facts.map { Int($0.vendor) },
                        product: facts.map { Int($0.product) }
                    )
                }
            }
        }
    }

    // MARK: before a guest gets one

    private func prepare(_ call: PCIPrepare) async throws(ControlError) -> PCIPrepare.Reply {
        let stub = try pciStub()
        _ = try toolstack()
        let line: PCIDeviceLine
        do throws(PCITextFault) { line = try PCIDeviceLine(parsing: call.line) } catch {
            throw .deviceFailed(reason: "\(error)")
        }
        let domain = try await domain(call.domain)
        let names = try await blocking { () throws(HostFailure) in try PCIPreparation.cards(of: line, stub.tree) }
        if line.seize {
            for name in names {
                let driver = try await blocking { () throws(HostFailure) in try stub.hide(name) }
                broker.log.notice("\(name) is hidden from the host\(driver.map { "; it was \($0)'s" } ?? "")")
            }
        }
        var checks: [PCICheck.Reply] = []
        for name in names { checks.append(try await check("\(name)", for: domain)) }
        return PCIPrepare.Reply(
            domain: Int(domain.rawValue),
            checks: checks,
            line: PCIPreparation.withoutSeize(call.line)
        )
    }

    // MARK: virtual functions

    private func virtualFunctions(_ call: PCIVirtualFunctions) async throws(ControlError) -> PCIVirtualFunctions.Reply {
        let (stub, _, name) = try card(call.card)
        if let count = call.count {
            guard let count = UInt16(exactly: count) else { throw .invalidParameter("count") }
            let facts = try await blocking { () throws(HostFailure) in try stub.tree.device(name) }
            let assignments = try await cardAssignments()
            // The kernel changes the number only by removing them all, whoever has them.
            if Int(count) != facts.virtualFunctions.count {
                for function in facts.virtualFunctions {
                    guard let address = try? PCIAddress(parsing: "\(function)") else { continue }
                    if let objection = assignments.objection(to: address) { throw .deviceFailed(reason: objection) }
                }
            }
            try await blocking { () throws(HostFailure) in try stub.makeVirtualFunctions(count, of: name) }
            broker.log.notice("\(name) has \(count) virtual functions")
        }
        return try await shownFunctions(of: name, stub)
    }

    private func set(_ call: PCIVirtualFunctionSet) async throws(ControlError) -> PCIVirtualFunctions.Reply {
        let (stub, _, name) = try card(call.card)
        guard let index = UInt32(exactly: call.index) else { throw .invalidParameter("index") }
        var change = VirtualFunction(spoofCheck: call.spoofCheck, trust: call.trust)
        if let text = call.address {
            guard let address = MACAddress(text: text) else { throw .invalidParameter("address") }
            change.address = (0..<6).map { UInt8(truncatingIfNeeded: address.rawValue >> (8 * UInt64($0))) }
        }
        if let vlan = call.vlan {
            guard let number = UInt16(exactly: vlan) else { throw .invalidParameter("vlan") }
            change.vlan = number
        }
        let wanted = change
        try await blocking { () throws(HostFailure) in
            let facts = try stub.tree.device(name)
            guard index < UInt32(facts.virtualFunctions.count) else {
                throw HostFailure(.notFound, "\(name) has \(facts.virtualFunctions.count) virtual functions, from 0")
            }
            guard let interface = stub.tree.interfaces(of: name).first else {
                throw HostFailure(
                    .denied,
                    "\(name) has no network interface here: its driver must be loaded, and it must be a network card"
                )
            }
            try KernelNetwork.set(wanted, ofVirtualFunction: index, of: interface)
        }
        return try await shownFunctions(of: name, stub)
    }

    private func shownFunctions(
        of name: PCIBusAddress,
        _ stub: PCIStub
    ) async throws(ControlError) -> PCIVirtualFunctions.Reply {
        let held = try await cardAssignments().holders
        return try await blocking { () throws(HostFailure) in
            let facts = try stub.tree.device(name)
            let interface = stub.tree.interfaces(of: name).first
            var functions: [PCIVirtualFunction] = []
            for (index, address) in facts.virtualFunctions.enumerated() {
                guard let function = stub.tree.facts(of: address) else { continue }
                let settings = interface.flatMap { try? KernelNetwork.virtualFunction(UInt32(index), of: $0) } ?? nil
                let holder = (try? PCIAddress(parsing: "\(address)")).flatMap { held[$0] }
                functions.append(
                    PCIVirtualFunction(
                        index: index,
                        card: PCIDevice(function, original: stub.remembered(address)),
                        domain: holder.map { Int($0.rawValue) },
                        address: settings?.address.flatMap { PCIPreparation.text(of: $0) },
                        vlan: settings?.vlan.map { Int($0) },
                        spoofCheck: settings?.spoofCheck,
                        trust: settings?.trust
                    )
                )
            }
            return PCIVirtualFunctions.Reply(
                card: PCIDevice(facts, original: stub.remembered(name)),
                limit: Int(facts.virtualFunctionLimit),
                functions: functions
            )
        }
    }
}

/// What a line of a guest's configuration means on this host.
enum PCIPreparation {
    /// The cards of a line: one, or with `.*` all functions of a device.
    static func cards(of line: PCIDeviceLine, _ tree: PCITree) throws(HostFailure) -> [PCIBusAddress] {
        let found = try tree.devices().filter { facts in
            (try? PCIAddress(parsing: "\(facts.address)")).map { line.card.matches($0) } ?? false
        }
        guard !found.isEmpty else {
            throw HostFailure(.notFound, "there is no card \(line.card) on this host; lspci -D lists those there are")
        }
        return found.map(\.address)
    }

    /// `00:16:3e:01:02:03`, of six bytes.
    static func text(of address: [UInt8]) -> String? {
        guard address.count == 6 else { return nil }
        return MACAddress(address[0], address[1], address[2], address[3], address[4], address[5]).description
    }

    /// xl would take the card from its driver by itself, and not remember whose it was: that is done by now.
    static func withoutSeize(_ line: String) -> String {
        line.split(separator: ",").filter { part in
            part.drop { $0 == " " }.split(separator: "=").first != "seize"
        }.joined(separator: ",")
    }
}
