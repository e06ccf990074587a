// Cards as text: addresses alone in lists, as xm and xl print them, and a check as a table.

extension PCIListAssignable.Reply {
    /// One address a line, for scripts.
    public var text: String { cards.map { "\($0.address.printable)\n" }.joined() }
}

extension PCICheck.Reply {
    /// The card, a line for each finding, and the line for xl if there is no obstacle.
    public var text: String {
        var table = TextTable("verdict", "subject", "what and why")
        for finding in findings { table.add(finding.verdict, finding.subject, finding.text) }
        let end = isAssignable ? "\n\(line.printable)\n" : "\nit cannot be given away like this\n"
        return card.text + "\n" + table.text + end
    }
}

extension PCIDevice {
    /// `0000:08:05.0: ID 8086:10d3 class 0200`
    public var text: String {
        "\(address.printable): ID \(Self.hexadecimal(vendor)):\(Self.hexadecimal(product)) "
            + "class \(Self.hexadecimal(deviceClass >> 8))"
    }

    static func hexadecimal(_ number: Int) -> String {
        let text = String(number, radix: 16)
        return String(repeating: "0", count: max(0, 4 - text.count)) + text
    }
}

extension PCIList.Reply {
    public var text: String {
        if cards.isEmpty { return "no PCI cards\n" }
        var table = TextTable("VDEV", "DEVICE", "ID", "STATE", "SERVED BY", "OPTIONS")
        for card in cards {
            let id = card.vendor.map {
                "\(PCIDevice.hexadecimal($0)):\(PCIDevice.hexadecimal(card.product ?? 0))"
            }
            table.add(card.virtualAddress, card.address, id ?? "gone", card.state, card.server, card.options)
        }
        return table.text
    }
}

extension PCIPrepare.Reply {
    /// What is not as good as it could be, a line each: for the person who gives the card away.
    public var warnings: String {
        checks.map { check in
            check.findings.filter { $0.verdict != "good" }.map {
                "\(check.card.address.printable): \($0.verdict.printable): \($0.text.printable)\n"
            }.joined()
        }.joined()
    }
}

extension PCIVirtualFunctions.Reply {
    public var text: String {
        var table = TextTable("VF", "DEVICE", "ID", "DRIVER", "DOMAIN", "MAC", "VLAN", "SPOOF-CHECK", "TRUST")
        for function in functions {
            let card = function.card
            table.add(
                "\(function.index)",
                card.address,
                "\(PCIDevice.hexadecimal(card.vendor)):\(PCIDevice.hexadecimal(card.product))",
                card.driver,
                function.domain.map { "\($0)" },
                function.address,
                function.vlan.flatMap { $0 == 0 ? nil : "\($0)" },
                function.spoofCheck.map { $0 ? "on" : "off" },
                function.trust.map { $0 ? "on" : "off" }
            )
        }
        let head = "\(card.address.printable): \(functions.count) of \(limit) virtual functions\n"
        return functions.isEmpty ? head : head + table.text
    }
}
