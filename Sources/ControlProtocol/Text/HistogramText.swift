// A latency histogram that people can read.

extension Report.Histogram {
    /// All that were counted.
    public var count: Int64 { buckets.reduce(0) { $0.addingReportingOverflow($1).partialValue } }

    /// A heading and a line for each bucket from the first to the last that is not empty.
    public var text: String {
        let buckets = buckets.map { max($0, 0) }
        guard count > 0, let first = buckets.firstIndex(where: { $0 > 0 }),
            let last = buckets.lastIndex(where: { $0 > 0 })
        else { return "latency of \(name.printable): none measured\n" }
        let percentiles = [50, 99].map { "p\($0) \(upperBound(ofPercentile: $0))" }.joined(separator: ", ")
        var text = "latency of \(name.printable): \(percentiles), \(count) measured\n"
        let most = buckets.max() ?? 1
        let digits = "\(most)".count
        for index in first...last {
            let value = buckets[index]
            let bar = String(repeating: "#", count: Int(Double(value) / Double(most) * 40 + 0.5))
            let number = "\(value)"
            text += "  " + range(index).padded(17) + String(repeating: " ", count: digits - number.count) + number
            text += (value > 0 ? "  " + (bar.isEmpty ? "." : bar) : "") + "\n"
        }
        return text
    }

    /// At most this share took longer than the result says.
    private func upperBound(ofPercentile percentile: Int) -> String {
        // Of `count` sorted values, the one at this place, from 1.
        let rank = (Double(count) * Double(percentile) / 100).rounded(.up)
        var sum = 0.0
        for (index, value) in buckets.enumerated() {
            sum += Double(value)
            if sum >= rank {
                return index == buckets.count - 1 ? "> \(Self.time(index - 1))" : "< \(Self.time(index))"
            }
        }
        return "?"
    }

    private func range(_ index: Int) -> String {
        if index == 0 { return "< \(Self.time(0))" }
        if index == buckets.count - 1 { return "> \(Self.time(index - 1))" }
        return "\(Self.time(index - 1)) … \(Self.time(index))"
    }

    /// 2^exponent µs, rounded for people: 1024 µs is 1 ms.
    private static func time(_ exponent: Int) -> String {
        switch exponent {
        case ..<0: "0"
        case ..<10: "\(1 << exponent) µs"
        case ..<20: "\(1 << (exponent - 10)) ms"
        case ..<62: "\(1 << (exponent - 20)) s"
        default: "for ever"
        }
    }
}

extension String {
    func padded(_ width: Int) -> String { self + String(repeating: " ", count: max(width - count, 0)) }
}
