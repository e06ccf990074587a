// Whether a card can be given away, and what stands in the way: each point on its own, with what to do.

public import HostIO

/// One point.
public struct PCIFinding: Hashable, Sendable {
    public enum Verdict: String, Sendable, CaseIterable {
        case good
        /// It can be given away, with a consequence that one may not expect.
        case warning
        /// It cannot be given away like this.
        case obstacle
    }
    public let verdict: Verdict
    /// A word or two: `driver`, `reset`.
    public let subject: String
    public let text: String

    public init(_ verdict: Verdict, _ subject: String, _ text: String) {
        self.verdict = verdict
        self.subject = subject
        self.text = text
    }
}

extension PCIStub {
    /// What the host has to say about giving a card away, always in the same order.
    /// - Throws: `.notFound` if there is no such card.
    public func findings(on address: PCIBusAddress) throws(HostFailure) -> [PCIFinding] {
        let facts = try tree.device(address)
        let space = try tree.configuration(of: address)
        if facts.isBridge {
            return [PCIFinding(.obstacle, "kind", "it is a bridge: what is plugged in below it can be given away")]
        }
        var findings = [driver(of: facts), presence(space), windows(of: facts), reset(of: facts)]
        let companions = try tree.companions(of: facts)
        if !companions.isEmpty { findings.append(together(companions)) }
        findings.append(interrupts(space))
        if !facts.virtualFunctions.isEmpty {
            let count = facts.virtualFunctions.count
            findings.append(
                PCIFinding(
                    .obstacle,
                    "functions",
                    "\(count) virtual functions depend on it: give those away, or end them"
                )
            )
        }
        if facts.isBootVGA {
            let text = "it is the host's screen, which goes dark; the guest needs gfx_passthru=1 to start on it"
            findings.append(PCIFinding(.warning, "screen", text))
        }
        return findings
    }

    private func driver(of facts: PCIDeviceFacts) -> PCIFinding {
        let cure = "xenback pci-assignable-add \(facts.address) hides it"
        switch facts.driver {
        case name?: return PCIFinding(.good, "driver", "hidden from the host's drivers by \(name)")
        case let driver?: return PCIFinding(.obstacle, "driver", "the host uses it with \(driver); \(cure)")
        case nil: return PCIFinding(.obstacle, "driver", "no driver has it, and any may take it; \(cure)")
        }
    }

    private func presence(_ space: PCIConfigurationBytes) -> PCIFinding {
        space.isPresent
            ? PCIFinding(.good, "presence", "it answers")
            : PCIFinding(.obstacle, "presence", "it does not answer: it was pulled out, or has no power")
    }

    /// Windows to which the firmware gave no address (Linux, `IORESOURCE_UNSET` and `_DISABLED`).
    private func windows(of facts: PCIDeviceFacts) -> PCIFinding {
        let lost = facts.windows.prefix(6).enumerated().filter { $0.element.flags & 0x3000_0000 != 0 }.map {
            "\($0.offset)"
        }
        if lost.isEmpty { return PCIFinding(.good, "windows", "all have addresses") }
        let text = "BAR \(lost.joined(separator: ", ")) has no address: look for 'no space' in the kernel's log"
        return PCIFinding(.obstacle, "windows", text)
    }

    private func reset(of facts: PCIDeviceFacts) -> PCIFinding {
        let methods = tree.resetMethods(of: facts.address)
        let names = methods.map(\.rawValue).joined(separator: ", ")
        if methods.isEmpty {
            return PCIFinding(.warning, "reset", "there is none: the next guest finds it as the last one left it")
        }
        if methods.contains(where: \.isOwnFunctionOnly) { return PCIFinding(.good, "reset", names) }
        return PCIFinding(.warning, "reset", "\(names): perhaps of everything on its bus")
    }

    private func together(_ companions: [PCIDeviceFacts]) -> PCIFinding {
        let open = companions.filter { $0.driver != name }.map { "\($0.address)" }
        let all = companions.map { "\($0.address)" }.joined(separator: ", ")
        if open.isEmpty { return PCIFinding(.warning, "companions", "the same guest must have \(all)") }
        let text = "the same guest must have \(all); xenback pci-assignable-add \(open.joined(separator: ", ")) first"
        return PCIFinding(.obstacle, "companions", text)
    }

    private func interrupts(_ space: PCIConfigurationBytes) -> PCIFinding {
        let ids = Set(space.capabilities.filter { !$0.isExtended }.map(\.id))
        var kinds: [String] = []
        if ids.contains(PCICapability.msix) { kinds.append("MSI-X") }
        if ids.contains(PCICapability.msi) { kinds.append("MSI") }
        if let pin = space.interruptPin, pin != 0 { kinds.append("a pin, which others may share") }
        return PCIFinding(.good, "interrupts", kinds.isEmpty ? "none" : kinds.joined(separator: ", "))
    }
}
