// After a predecessor: what the guest has is found in the journal and in the cards themselves, and an operation is answered once.

internal import BackendCore
internal import HostIO
internal import HostPCI
internal import Hypervisor
internal import SharedRing
internal import XenWire

extension PCIQueue {
    /// Goes on with the cards as the guest knows them.
    /// - Parameter memories: what the predecessor kept; nil if it kept nothing.
    func takeOver(_ memories: [PCICardMemory]?) {
        for index in cards.indices {
            guard let memory = memories?.first(where: { $0.address == cards[index].address }) else {
                // What the card says is true, and the numbers of its interrupts are the hypervisor's until the domain ends.
                cards[index].interrupts = usesMessages(index)
                continue
            }
            cards[index].restore(memory)
            switch memory.stage {
            // The frontend was not told, and the operation is still in the page: it is begun anew.
            case .enabling: disableInterrupts(index)
            case .enabled: answerEnabled(index)
            case .settled: break
            }
        }
    }

    /// An enabling that was done, and of which nobody knows whether it was told: if the page asks for it still, this is its
    /// answer. It would be refused if it were done again.
    private func answerEnabled(_ index: Int) {
        guard let page, page.loadAcquire(at: PCIWire.flagsOffset) & PCIWire.frontendActive != 0 else { return }
        page.copyOut(at: PCIWire.operationOffset, count: PCIWire.operationSize, to: operation, at: 0)
        let raw = RawPCIOperation(operation.slot(at: 0, byteCount: PCIWire.operationSize))
        guard let place = PCIAddress(domain: raw.domain, bus: raw.bus, devfn: raw.devfn),
            bus.host(at: place) == cards[index].address, let request = try? PCIRequest(validating: raw)
        else { return }
        switch (request, cards[index].interrupts) {
        case (.enableMSI, .message): break
        case (.enableMSIX(let entries), .messages(let vectors)) where vectors.map(\.entry) == entries: break
        default: return
        }
        publish(PCIQueue.answer(cards[index].interrupts), page)
        notifyFrontend()
    }

    // MARK: giving back

    /// Makes a card what it was before the guest had it: awake, with its own addresses, and reset. Whatever fails, the rest
    /// is done; a card that cannot be reset stays marked, and nobody gets it before it can.
    func giveBack(_ card: PCIGuestCard) {
        facts.activity.during(card.address) {
            do throws(HostFailure) { try wake(card) } catch { say(error) }
            do throws(HostFailure) { try card.card.restore(to: card.header) } catch { say(error) }
            do throws(HostFailure) {
                if let note = try card.card.finish() { log.failure(note) }
            } catch {
                log.failure("\(error); \(card.address) stays in quarantine: it is given to nobody before it was reset")
            }
        }
    }

    /// A card that was pulled out is not worth a line.
    private func say(_ failure: HostFailure) {
        if failure.kind != .notFound { log.failure(failure.text) }
    }

    private func wake(_ card: PCIGuestCard) throws(HostFailure) {
        let id = PCICapability.powerManagement
        guard let power = card.card.original.capabilities.first(where: { $0.id == id && !$0.isExtended }),
            power.offset + 6 <= 256, try card.card.read(2, at: power.offset + 4) & 3 != 0
        else { return }
        try card.card.enter(powerState: 0)
    }
}
