// The grammar of a netchannel2 card's line: key=value, separated by commas.

internal import XenWire

/// Reads one line, key by key.
struct Network2LineParser {
    private let line: String
    private var result = Network2Line()
    private var seen: Set<Substring> = []

    init(_ line: String) { self.line = line }

    mutating func parse() throws(DeviceLineError) -> Network2Line {
        if line.utf8.contains(0) { throw error("a NUL character", at: line[...]) }
        for part in line.split(separator: ",", omittingEmptySubsequences: false) {
            let part = trimmed(part)
            // The manual's own `vif2=['bridge=br0',]` ends with a comma, and an empty line is a card without anything.
            if !part.isEmpty { try parse(part) }
        }
        return result
    }

    private mutating func parse(_ part: Substring) throws(DeviceLineError) {
        guard let equals = part.firstIndex(of: "=") else {
            throw error("'\(part)' is no key=value; \(Self.keys)", at: part)
        }
        let key = trimmed(part[..<equals])
        let value = trimmed(part[part.index(after: equals)...])
        // Two names of one thing.
        let name = key == "mac" ? "front_mac" : key
        guard seen.insert(name).inserted else { throw error("\(key) given twice", at: part) }
        switch name {
        case "bridge": result.bridge = try text(value, key, limit: 15)
        case "pdev": result.physicalDevice = try text(value, key, limit: 64)
        case "front_mac": result.frontMAC = try address(value, key)
        case "back_mac": result.backMAC = try address(value, key)
        case "trusted": result.isTrusted = try flag(value, key)
        case "back_trusted": result.isBackTrusted = try flag(value, key)
        case "filter_mac": result.filters = try flag(value, key)
        case "front_filter_mac": result.frontFilters = try flag(value, key)
        case "max_bypasses": result.maxBypasses = try number(value, key, in: 0...65535)
        case "mtu": result.mtu = try number(value, key, in: 68...65535)
        case "rate": result.rate = try rate(value)
        case "backend":
            guard ["0", "Domain-0"].contains(value) else {
                throw error("a card is served by the domain that xenback runs in: no backend=\(value)", at: part)
            }
        default: throw unknown(key, part)
        }
    }

    private static let keys =
        "known are bridge, mac (or front_mac), back_mac, trusted, back_trusted, filter_mac, front_filter_mac, pdev, "
        + "max_bypasses, rate, mtu"

    /// Keywords of other lines are refused by name, with what to write instead.
    private func unknown(_ key: Substring, _ part: Substring) -> DeviceLineError {
        switch key {
        case "vif2": error("vif2=[…] belongs in a configuration file; write only what is between its quotes", at: part)
        case "vif": error("vif=[…] is another kind of card, which xl network-attach gives", at: part)
        case "script", "ip", "gatewaydev", "vifname", "model", "type":
            error("\(key)= is for cards of kind vif; netchannel2's are placed by xenbackd itself", at: part)
        default: error("unknown key '\(key)'; \(Self.keys)", at: part)
        }
    }

    // MARK: values

    private func text(_ value: Substring, _ key: Substring, limit: Int) throws(DeviceLineError) -> String {
        guard !value.isEmpty, value.utf8.count <= limit,
            value.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F && $0 != UInt8(ascii: "/") })
        else { throw error("\(key) is a name of 1 to \(limit) printable characters, not '\(value)'", at: value) }
        return String(value)
    }

    private func address(_ value: Substring, _ key: Substring) throws(DeviceLineError) -> String {
        guard let address = MACAddress(text: value) else {
            throw error("\(key) is an address like 00:16:3e:12:34:56, not '\(value)'", at: value)
        }
        if address.isGroup { throw error("\(key)=\(address) is a multicast address, which no card has", at: value) }
        return address.description
    }

    private func flag(_ value: Substring, _ key: Substring) throws(DeviceLineError) -> Bool {
        switch value {
        case "0": return false
        case "1": return true
        default: throw error("\(key) is 0 or 1, not '\(value)'", at: value)
        }
    }

    private func number(
        _ value: Substring,
        _ key: Substring,
        in range: ClosedRange<Int>
    ) throws(DeviceLineError) -> Int {
        guard let number = Int(decimal: value), range.contains(number) else {
            throw error(
                "\(key) is a number from \(range.lowerBound) to \(range.upperBound), not '\(value)'",
                at: value
            )
        }
        return number
    }

    /// xl's `rate`: `10Mb/s`, `250KB/s`, `1MB/s@20ms`; the interval is 50 ms without one.
    private func rate(_ value: Substring) throws(DeviceLineError) -> String {
        let parts = value.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false)
        let interval = parts.count == 2 ? microseconds(parts[1]) : 50_000
        guard let perSecond = bytesPerSecond(parts[0]), let interval, interval > 0 else {
            throw error("rate is like 10Mb/s, 250KB/s or 1MB/s@20ms, not '\(value)'", at: value)
        }
        let (product, overflows) = perSecond.multipliedReportingOverflow(by: interval)
        let bytes = product / 1_000_000
        guard !overflows, bytes > 0, TransmitRate(text: "\(bytes),\(interval)") != nil else {
            throw error("rate=\(value) is too small or too large", at: value)
        }
        return "\(bytes),\(interval)"
    }

    private func bytesPerSecond(_ text: Substring) -> UInt64? {
        guard text.hasSuffix("/s") else { return nil }
        var rest = text.dropLast(2)
        let divisor: UInt64
        switch rest.popLast() {
        case "b": divisor = 8
        case "B": divisor = 1
        default: return nil
        }
        var factor: UInt64 = 1
        switch rest.last {
        case "G": factor = 1_000_000_000
        case "M": factor = 1_000_000
        case "K": factor = 1000
        default: break
        }
        if factor > 1 { rest = rest.dropLast() }
        guard let number = UInt64(decimal: rest) else { return nil }
        let (product, overflows) = number.multipliedReportingOverflow(by: factor)
        return overflows ? nil : product / divisor
    }

    private func microseconds(_ text: Substring) -> UInt64? {
        for (unit, factor) in [("us", 1), ("ms", 1000), ("s", 1_000_000)] as [(String, UInt64)]
        where text.hasSuffix(unit) {
            guard let number = UInt32(decimal: text.dropLast(unit.count)) else { return nil }
            return UInt64(number) * factor
        }
        return nil
    }

    // MARK: pieces

    private func trimmed(_ text: Substring) -> Substring {
        var text = text
        while let first = text.first, first.isWhitespace { text.removeFirst() }
        while let last = text.last, last.isWhitespace { text.removeLast() }
        return text
    }

    private func error(_ reason: String, at part: Substring) -> DeviceLineError {
        DeviceLineError(
            "card",
            line: line,
            reason: reason,
            position: line.distance(from: line.startIndex, to: part.startIndex)
        )
    }
}
