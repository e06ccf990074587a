// One operation of the frontend: copied once, validated, carried out, answered.

internal import BackendCore
internal import HostIO
internal import HostPCI
internal import Hypervisor
internal import SharedRing
internal import XenWire

extension PCIQueue {
    private static let errorOffset = PCIWire.operationOffset + 4
    private static let valueOffset = PCIWire.operationOffset + 28
    private static let vectorsOffset = PCIWire.operationOffset + PCIWire.operationHeadSize

    /// Takes the operation in the page, and answers it. What is not needed for the answer comes after it, beside the frontend.
    /// - Parameter start: when it was found.
    /// - Returns: false if the frontend has given it up meanwhile, as pcifront does after two seconds: what is in the page now is
    ///   another one.
    func serve(_ page: SharedPages, since start: UInt64) -> Bool {
        page.copyOut(at: PCIWire.operationOffset, count: PCIWire.operationSize, to: operation, at: 0)
        let raw = RawPCIOperation(operation.slot(at: 0, byteCount: PCIWire.operationSize))
        let answer = answer(raw, since: start)
        if isGivenUp(page) {
            metrics.givenUp &+= 1
            return false
        }
        publish(answer, page)
        notifyFrontend()
        facts.mark?.progressed()
        return true
    }

    /// Whether the page holds another operation than the one that was taken, or none.
    private func isGivenUp(_ page: SharedPages) -> Bool {
        guard page.loadAcquire(at: PCIWire.flagsOffset) & PCIWire.frontendActive != 0 else { return true }
        let head = PCIWire.operationHeadSize
        page.copyOut(at: PCIWire.operationOffset, count: head, to: operation, at: 1024)
        let (old, new) = (operation.slot(at: 0, byteCount: head), operation.slot(at: 1024, byteCount: head))
        return stride(from: 0, to: head, by: 4).contains { old.u32($0) != new.u32($0) }
    }

    /// Writes what the frontend reads and nothing else, then clears the flag, which is the answer.
    func publish(_ answer: PCIAnswer, _ page: SharedPages) {
        answer.encode(into: operation.slot(at: 0, byteCount: PCIWire.operationSize))
        page.copyIn(at: PCIQueue.errorOffset, count: 4, from: operation, at: 4)
        page.copyIn(at: PCIQueue.valueOffset, count: 4, from: operation, at: 28)
        if !answer.vectors.isEmpty {
            let count = 4 * min(answer.vectors.count, PCIWire.maxVectors)
            page.copyIn(at: PCIQueue.vectorsOffset, count: count, from: operation, at: PCIWire.operationHeadSize)
        }
        page.clearBits(PCIWire.frontendActive, at: PCIWire.flagsOffset)
    }

    private func answer(_ raw: RawPCIOperation<Slot>, since start: UInt64) -> PCIAnswer {
        guard let place = PCIAddress(domain: raw.domain, bus: raw.bus, devfn: raw.devfn),
            let host = bus.host(at: place),
            let index = cards.firstIndex(where: { $0.address == host })
        else {
            // A frontend asks for all 256 functions of a bus: no fault.
            metrics.misdirected &+= 1
            return PCIAnswer(.deviceNotFound)
        }
        do throws(PCIError) {
            let request = try PCIRequest(validating: raw)
            return try facts.activity.during(host, since: start) { () throws(PCIError) in
                try carryOut(request, index, raw.value)
            }
        } catch {
            count(error)
            return PCIAnswer(error, value: 0)
        }
    }

    private func carryOut(_ request: PCIRequest, _ index: Int, _ value: UInt32) throws(PCIError) -> PCIAnswer {
        switch request {
        case .read(let register):
            metrics.reads &+= 1
            return PCIAnswer(
                value: try access(index) { (card, device) throws(PCIError) in
                    try card.configuration.read(register, of: device)
                }
            )
        case .write(let register, let value):
            metrics.writes &+= 1
            try write(value, register, index)
            return PCIAnswer(value: value)
        case .enableMSI: return try enableMSI(index)
        case .disableMSI:
            // Linux says this when it ends MSI-X, too: `msix_enabled` is cleared before its Xen code asks which kind it was
            // (arch/x86/pci/xen.c, xen_pv_teardown_msi_irqs). Refused to end, the next enabling would be a second one.
            if cards[index].interrupts != .line { disableInterrupts(index) }
            return PCIAnswer()
        case .enableMSIX(let entries): return try enableMSIX(index, entries)
        case .disableMSIX:
            if cards[index].interrupts.isMSIX { disableInterrupts(index) }
            return PCIAnswer()
        }
    }

    private func write(_ value: UInt32, _ register: PCIRegister, _ index: Int) throws(PCIError) {
        let old = cards[index].configuration.shadow
        let unlisted = try access(index) { (card, device) throws(PCIError) in
            try card.configuration.write(value, to: register, of: device)
        }
        // Before the guest can build on it.
        if cards[index].configuration.shadow != old { remember() }
        guard let unlisted else { return }
        metrics.unlisted &+= 1
        guard cards[index].told.insert(unlisted).inserted else { return }
        let card = cards[index]
        let what = "\(card.address): a write to \(register), which the policy does not list, was "
        let outcome =
            card.options.permissive ? "let through (permissive)" : "dropped; permissive=1 would let it through"
        log.remark(what + outcome)
    }

    /// Accesses a card, and says once what the host did not do.
    func access<Result>(
        _ index: Int,
        _ body: (inout PCIGuestCard, PCICardAccess) throws(PCIError) -> Result
    ) throws(PCIError) -> Result {
        let device = PCICardAccess(cards[index].card)
        defer { if let failure = device.failure { log.failure(failure.text) } }
        return try body(&cards[index], device)
    }

    private func count(_ error: PCIError) {
        switch error {
        case .accessDenied: metrics.refused &+= 1
        case .operationFailed, .deviceNotFound: metrics.failures &+= 1
        default: metrics.faults &+= 1
        }
    }
}
