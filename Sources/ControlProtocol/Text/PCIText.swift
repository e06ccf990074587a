// Cards as text: addresses alone in lists, as xm and xl print them, and a check as a table.

extension PCIListAssignable.Reply {
    /// One address a line, for scripts that read no more.
    public var text: String { cards.map { "\($0.address.printable)\n" }.joined() }
}

extension PCICheck.Reply {
    /// The card, one line for each point, and the line for xl if nothing stands in the way.
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

    private static func hexadecimal(_ number: Int) -> String {
        let text = String(number, radix: 16)
        return String(repeating: "0", count: max(0, 4 - text.count)) + text
    }
}
