// MSI and MSI-X: mapped for the guest by the hypervisor, switched on in the card by us, and undone in reverse.

internal import BackendCore
internal import HostPCI
internal import Hypervisor
internal import SystemPackage
internal import XenWire

/// Bits of the registers that are ours to switch (PCI 3.0, 6.2.2 and 6.8).
private enum InterruptBits {
    static let command = PCIRegister(offset: 4, size: 2)!
    static let busMaster: UInt32 = 0x0004
    /// Of COMMAND: the pin is off.
    static let lineOff: UInt32 = 0x0400
    static let msi: UInt32 = 0x0001
    /// How many messages: one.
    static let messageCount: UInt32 = 0x0070
    static let msix: UInt32 = 0x8000
    static let maskAll: UInt32 = 0x4000
}

/// What Xen does and what is left to us is said in `PCIBackend.md`.
extension PCIQueue {
    func enableMSI(_ index: Int) throws(PCIError) -> PCIAnswer {
        let layout = cards[index].layout
        try cards[index].interrupts.enableMSI(hasMSI: layout.msi != nil)
        guard let msi = layout.msi else { throw .operationFailed }
        remember(.enabling, of: index)
        do throws(PCIError) {
            let mapping = try map(index, entry: 0, row: nil)
            try change(index, PCIQueue.control(of: msi), clear: InterruptBits.messageCount, set: 0)
            try change(index, InterruptBits.command, set: InterruptBits.lineOff)
            try change(index, PCIQueue.control(of: msi), set: InterruptBits.msi)
            cards[index].interrupts = .message(mapping.interrupt.rawValue)
        } catch {
            disableInterrupts(index)
            throw error
        }
        return enabled(index)
    }

    func enableMSIX(_ index: Int, _ entries: [UInt16]) throws(PCIError) -> PCIAnswer {
        let layout = cards[index].layout
        // The guest's COMMAND switches its memory on; nobody does it behind the guest's back (XSA-120, XSA-157).
        let decodesMemory = try access(index) { (_, device) throws(PCIError) in try device.decodesMemory() }
        try cards[index].interrupts.enableMSIX(
            entries,
            tableSize: layout.tableBase == nil ? nil : layout.rows,
            decodesMemory: decodesMemory
        )
        guard let msix = layout.msix, let base = layout.tableBase else { throw .notPossible }
        remember(.enabling, of: index)
        do throws(PCIError) {
            // Some cards accept writes to their table only while MSI-X is on; with everything masked, no interrupt
            // comes of it.
            try change(index, PCIQueue.control(of: msix), set: InterruptBits.msix | InterruptBits.maskAll)
            for entry in entries {
                _ = try map(index, entry: entry, row: .init(entry: entry, tableBase: base))
                remember(.enabling, of: index)
            }
            try change(index, InterruptBits.command, set: InterruptBits.lineOff)
            try change(index, PCIQueue.control(of: msix), clear: InterruptBits.maskAll, set: InterruptBits.msix)
            cards[index].interrupts = .messages(PCIVectorMapping.vectors(cards[index].mapped))
        } catch {
            disableInterrupts(index)
            throw error
        }
        return enabled(index)
    }

    private func enabled(_ index: Int) -> PCIAnswer {
        metrics.interruptsEnabled &+= 1
        remember(.enabled, of: index)
        return PCIQueue.answer(cards[index].interrupts)
    }

    /// What the frontend is told after an enabling.
    static func answer(_ interrupts: PCIInterruptMode) -> PCIAnswer {
        switch interrupts {
        case .line: PCIAnswer()
        case .message(let number): PCIAnswer(value: number)
        case .messages(let vectors): PCIAnswer(vectors: vectors)
        }
    }

    /// Back to the card's pin: first the card, then what the hypervisor mapped, the last one first. Whatever fails, the rest
    /// is done.
    func disableInterrupts(_ index: Int) {
        let layout = cards[index].layout
        if let msi = layout.msi { attempt(index, PCIQueue.control(of: msi), clear: InterruptBits.msi) }
        if let msix = layout.msix {
            attempt(index, PCIQueue.control(of: msix), clear: InterruptBits.msix | InterruptBits.maskAll)
        }
        attempt(index, InterruptBits.command, clear: InterruptBits.lineOff)
        while let last = cards[index].mapped.popLast() { unmap(last, of: cards[index].address) }
        if cards[index].interrupts != .line { metrics.interruptsDisabled &+= 1 }
        cards[index].interrupts = .line
        remember()
    }

    /// Cuts the card off: it reaches neither memory nor a processor any more.
    func quiet(_ index: Int) {
        attempt(index, InterruptBits.command, clear: InterruptBits.busMaster)
        disableInterrupts(index)
    }

    // MARK: steps

    private func map(
        _ index: Int,
        entry: UInt16,
        row: MessageInterrupt.Row?
    ) throws(PCIError) -> PCIVectorMapping {
        let message = MessageInterrupt(cards[index].address, row: row)
        do throws(HypervisorFailure) {
            let interrupt = try facts.interrupts.map(message, for: facts.path.domain)
            let mapping = PCIVectorMapping(entry: entry, interrupt: interrupt)
            cards[index].mapped.append(mapping)
            metrics.vectors &+= 1
            return mapping
        } catch {
            log.failure("\(error)\(PCIQueue.advice(error.errno))")
            throw .operationFailed
        }
    }

    /// An interrupt that the domain has lost already counts as unmapped.
    private func unmap(_ mapping: PCIVectorMapping, of card: PCIAddress) {
        do throws(HypervisorFailure) { try facts.interrupts.unmap(mapping.interrupt, of: facts.path.domain) } catch {
            guard error.errno != .noSuchProcess, error.errno != .invalidArgument else { return }
            log.failure("\(card): \(error)")
        }
    }

    private static func advice(_ error: Errno) -> String {
        switch error {
        case .operationNotSupportedByDevice: "; is the card assigned to the domain (xl pci-list), and does Xen know it?"
        case .invalidArgument:
            "; Xen read the size of the card's table when the card appeared: a virtual function must have got its interrupts"
                + " before it was made"
        case .noData: "; the card must be hidden by xen-pciback, which prepares its MSI-X"
        default: ""
        }
    }

    private static func control(of capability: Int) -> PCIRegister {
        PCIRegister(offset: Int32(clamping: capability + 2), size: 2)!
    }

    /// Changes bits of a register, and writes nothing where that changes nothing.
    private func change(
        _ index: Int,
        _ register: PCIRegister,
        clear: UInt32 = 0,
        set: UInt32 = 0
    ) throws(PCIError) {
        try access(index) { (_, device) throws(PCIError) in
            let old = try device.read(register)
            let new = old & ~clear | set
            if new != old { try device.write(new, to: register) }
        }
    }

    /// The same where nothing can be done about a failure: the card is gone, or will be reset.
    private func attempt(_ index: Int, _ register: PCIRegister, clear: UInt32) {
        do throws(PCIError) { try change(index, register, clear: clear) } catch {
            log.failure("\(cards[index].address): \(register) cannot be changed: \(error)")
        }
    }

    /// How a card interrupts according to its own registers, for a successor that has nothing else to go by.
    func usesMessages(_ index: Int) -> PCIInterruptMode {
        let layout = cards[index].layout
        func isSet(_ capability: Int?, _ bit: UInt32) -> Bool {
            guard let capability else { return false }
            let control = try? access(index) { (_, device) throws(PCIError) in
                try device.read(PCIQueue.control(of: capability))
            }
            return (control ?? 0) & bit != 0
        }
        if isSet(layout.msix, InterruptBits.msix) { return .messages([]) }
        if isSet(layout.msi, InterruptBits.msi) { return .message(0) }
        return .line
    }
}
