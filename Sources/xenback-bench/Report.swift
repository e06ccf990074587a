// How a measurement is shown: a table for people, JSON for programs.

/// One cell: text, or a number with so many decimals.
enum Cell {
    case text(String)
    case number(Double, decimals: Int = 2)

    var shown: String {
        switch self {
        case .text(let text): text
        case .number(let value, let decimals): fixed(value, decimals)
        }
    }

    /// As a JSON value.
    var json: String {
        switch self {
        case .text(let text): "\"\(text.filter { $0 != "\"" && $0 != "\\" && !$0.isNewline })\""
        case .number(let value, _): value.isFinite ? fixed(value, 4) : "null"
        }
    }
}

/// Rows under named columns.
struct Report {
    let title: String
    let columns: [String]
    private(set) var rows: [[Cell]] = []

    init(_ title: String, columns: [String]) {
        self.title = title
        self.columns = columns
    }

    mutating func add(_ row: [Cell]) {
        precondition(row.count == columns.count)
        rows.append(row)
    }

    /// Markdown, so that it can go into the documentation as it is.
    var table: String {
        let texts = [columns] + rows.map { $0.map(\.shown) }
        let widths = columns.indices.map { column in texts.map { $0[column].count }.max() ?? 0 }
        var lines = texts.map { row in
            "| " + row.indices.map { pad(row[$0], widths[$0], toTheLeft: $0 > 0) }.joined(separator: " | ") + " |"
        }
        let rule = widths.indices.map { $0 == 0 ? String(repeating: "-", count: widths[0]) : line(widths[$0]) }
        lines.insert("| " + rule.joined(separator: " | ") + " |", at: 1)
        return title + "\n\n" + lines.joined(separator: "\n")
    }

    /// An object with the title and an array of rows, each an object by column.
    var json: String {
        let objects = rows.map { row in
            "{" + zip(columns, row).map { "\"\($0)\": \($1.json)" }.joined(separator: ", ") + "}"
        }
        return "{\"title\": \"\(title)\", \"rows\": [\n  " + objects.joined(separator: ",\n  ") + "\n]}"
    }

    private func pad(_ text: String, _ width: Int, toTheLeft: Bool) -> String {
        let blanks = String(repeating: " ", count: width - text.count)
        return toTheLeft ? blanks + text : text + blanks
    }

    private func line(_ width: Int) -> String { String(repeating: "-", count: max(width - 1, 1)) + ":" }
}

/// A number in decimal with `decimals` digits behind the point.
func fixed(_ value: Double, _ decimals: Int) -> String {
    guard value.isFinite, value.magnitude < 1e15 else { return "-" }
    let scale = (0..<decimals).reduce(1.0) { scale, _ in scale * 10 }
    let scaled = UInt64((value.magnitude * scale).rounded())
    let digits = String(scaled % UInt64(scale))
    let fraction = decimals == 0 ? "" : "." + String(repeating: "0", count: decimals - digits.count) + digits
    return (value < 0 && scaled > 0 ? "-" : "") + String(scaled / UInt64(scale)) + fraction
}

/// The middle one; of an even number the upper of the two.
func median<Value: Comparable>(_ values: [Value]) -> Value { values.sorted()[values.count / 2] }
