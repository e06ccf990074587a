// Rows with aligned columns.

/// A table for a terminal: a heading, rows, two blanks between columns.
public struct TextTable: Sendable {
    private let heading: [String]
    private var rows: [[String]] = []

    public init(_ heading: String...) { self.heading = heading }

    /// Control characters become `?`: what a guest wrote must not drive the terminal of the person who looks at it.
    public mutating func add(_ cells: String?...) {
        rows.append(cells.map { ($0 ?? "-").printable })
    }

    /// Lines without blanks at their end, each closed by a newline. Columns that are empty in all rows are left out.
    public var text: String {
        let all = [heading] + rows
        let used = heading.indices.filter { column in rows.contains { $0[column] != "-" && !$0[column].isEmpty } }
        let widths = used.map { column in all.map { $0[column].count }.max() ?? 0 }
        return all.map { row in
            var line = ""
            for (column, width) in zip(used, widths) {
                line += row[column] + String(repeating: " ", count: width - row[column].count + 2)
            }
            while line.last == " " { line.removeLast() }
            return line + "\n"
        }.joined()
    }
}

extension String {
    /// Without control characters, which a terminal would interpret.
    public var printable: String {
        String(
            String.UnicodeScalarView(
                unicodeScalars.map { scalar in
                    switch scalar.properties.generalCategory {
                    case .control, .format, .lineSeparator, .paragraphSeparator: "?"
                    default: scalar
                    }
                }
            )
        )
    }
}
