// Where in the file a key is: the TOML library keeps positions for syntax errors only.

/// The text of a configuration file that parsed well.
struct ConfigurationSource {
    let file: String
    let text: String

    /// Line and column, from 1, where `path` is set or its table begins. Keys inside inline tables have none.
    func place(of path: [String]) -> (line: Int, column: Int)? {
        var table: [String] = []
        let lines = text.split(omittingEmptySubsequences: false) { $0 == "\n" || $0 == "\r\n" }
        for (index, line) in lines.enumerated() {
            let content = line.drop { $0 == " " || $0 == "\t" }
            let here = (line: index + 1, column: line.distance(from: line.startIndex, to: content.startIndex) + 1)
            guard let first = content.first, first != "#" else { continue }
            if first == "[" {
                table = Self.names(content.drop { $0 == "[" }.prefix { $0 != "]" })
                if table.starts(with: path) { return here }
            } else if let equals = content.firstIndex(of: "=") {
                if (table + Self.names(content[..<equals])).starts(with: path) { return here }
            }
        }
        return nil
    }

    /// `block."ring-page-order" ` → block, ring-page-order
    private static func names(_ dotted: Substring) -> [String] {
        dotted.split(separator: ".", omittingEmptySubsequences: false).map { part in
            String(part.filter { !" \t\"'".contains($0) })
        }
    }
}
