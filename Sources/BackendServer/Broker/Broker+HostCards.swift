// What the settings say of the host's own kernel: whether its bus of backends probes, and which cards are hidden from it.

internal import BackendCore
internal import HostIO
internal import HostPCI
internal import Logging
internal import SystemPackage
internal import XenWire

extension Broker {
    /// At the start, and when the settings were read again. Nothing that goes wrong here keeps a device from being served.
    func settleHost(_ configuration: Configuration) async {
        guard let stub = setting.pciStub else { return }
        if configuration.kernel.autoprobe == .off {
            let kernel = setting.kernelBackends
            do throws(Errno) {
                try await loop.blocking { () throws(Errno) in try kernel.stopProbing() }
            } catch {
                log.error("\(kernel.bus) still probes by itself: drivers_autoprobe cannot be written: \(error)")
            }
        }
        let patterns = configuration.pci.hide
        let messages = await loop.blocking {
            let line = (try? Files.contents(of: "/proc/cmdline", limit: 1 << 16)) ?? []
            var list = PCIHideList(commandLine: String(decoding: line, as: UTF8.self))
            list.add(patterns)
            return CardsToHide(list).hide(by: stub)
        }
        for message in messages { log.log(level: message.level, "\(message.text)") }
    }
}

/// The cards that the administrator wants to be hidden. udev has hidden most of them, before a driver could take them; a
/// card that another driver has by now is left to it, since the host may run on it.
struct CardsToHide: Sendable {
    let list: PCIHideList

    init(_ list: PCIHideList) { self.list = list }

    struct Message: Hashable, Sendable {
        var level: Logger.Level
        var text: String
    }

    /// Hides those that no driver has, and says what became of each.
    func hide(by stub: PCIStub) -> [Message] {
        var messages = list.faults.map { Message(level: .warning, text: "not hidden: \($0)") }
        if list.cards.isEmpty { return messages }
        let cards: [PCIDeviceFacts]
        do throws(HostFailure) { cards = try stub.tree.devices() } catch {
            return messages + [Message(level: .warning, text: "no card is hidden: \(error.text)")]
        }
        var missing = list.cards
        for card in cards where !card.isBridge {
            guard let address = try? PCIAddress(parsing: "\(card.address)"), list.hides(address) else { continue }
            missing.removeAll { $0.matches(address) }
            messages.append(hide(card, by: stub))
        }
        return messages
            + missing.map { Message(level: .warning, text: "not hidden: this host has no card \($0) (see lspci -D)") }
    }

    private func hide(_ card: PCIDeviceFacts, by stub: PCIStub) -> Message {
        switch card.driver {
        case stub.name?: return Message(level: .info, text: "\(card.address) is hidden from the host")
        case let driver?:
            let text =
                "\(card.address) is not hidden: \(driver) has it already; xenback pci-assignable-add \(card.address)"
                + " takes it now, update-initramfs -u (dracut -f) makes the next boot hide it in time"
            return Message(level: .warning, text: text)
        case nil:
            do throws(HostFailure) {
                try stub.hide(card.address)
                return Message(level: .notice, text: "\(card.address) is hidden from the host")
            } catch {
                return Message(level: .warning, text: "\(card.address) is not hidden: \(error.text)")
            }
        }
    }
}
