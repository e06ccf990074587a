// One table of the configuration file: typed keys, and an error for every unknown one.

internal import SystemPackage
internal import TOMLKit

/// Reads keys of one table, remembers which were asked for, and reports the others.
struct ConfigurationReader {
    private let content: TOMLTable
    private let path: [String]
    private let source: ConfigurationSource
    private var known: [String] = []

    init(text: String, file: String) throws(ConfigurationError) {
        source = ConfigurationSource(file: file, text: text)
        path = []
        do {
            content = try TOMLTable(string: text)
        } catch let error as TOMLParseError {
            let place = error.source.begin
            throw ConfigurationError(file: file, line: place.line, column: place.column, reason: error.description)
        } catch {
            throw ConfigurationError(file: file, line: nil, column: nil, reason: "\(error)")
        }
    }

    private init(_ content: TOMLTable, path: [String], source: ConfigurationSource) {
        self.content = content
        self.path = path
        self.source = source
    }

    mutating func table(_ key: String) throws(ConfigurationError) -> ConfigurationReader? {
        guard let table = try value(key, "a table ([\(key)])", { $0.table }) else { return nil }
        return ConfigurationReader(table, path: path + [key], source: source)
    }

    mutating func boolean(_ key: String) throws(ConfigurationError) -> Bool? {
        try value(key, "true or false", { $0.bool })
    }

    mutating func integer(_ key: String, in range: ClosedRange<Int>) throws(ConfigurationError) -> Int? {
        let wanted = "a whole number from \(range.lowerBound) to \(range.upperBound)"
        guard let number = try value(key, wanted, { $0.int }) else { return nil }
        guard range.contains(number) else { throw error("\(key) must be \(wanted), not \(number)", at: key) }
        return number
    }

    mutating func choice<Choice: RawRepresentable<String>>(
        _ key: String,
        _ choices: [Choice]
    ) throws(ConfigurationError) -> Choice? {
        let names = choices.map { "\"\($0.rawValue)\"" }
        let wanted = names.dropLast().joined(separator: ", ") + " or " + (names.last ?? "")
        guard let text = try value(key, wanted, { $0.string }) else { return nil }
        guard let choice = choices.first(where: { $0.rawValue == text }) else {
            throw error("\(key) must be \(wanted), not \"\(text)\"", at: key)
        }
        return choice
    }

    mutating func strings(_ key: String) throws(ConfigurationError) -> [String]? {
        try value(key, "an array of strings") { found in
            guard let array = found.array else { return nil }
            let texts = array.compactMap { $0.string }
            return texts.count == array.count ? texts : nil
        }
    }

    mutating func choices<Choice: RawRepresentable<String>>(
        _ key: String,
        _ choices: [Choice]
    ) throws(ConfigurationError) -> [Choice]? {
        guard let texts = try strings(key) else { return nil }
        var found: [Choice] = []
        for text in texts {
            guard let choice = choices.first(where: { $0.rawValue == text }) else {
                let names = choices.map { "\"\($0.rawValue)\"" }.joined(separator: ", ")
                throw error("\(key) may hold \(names), not \"\(text)\"", at: key)
            }
            found.append(choice)
        }
        return found
    }

    mutating func path(_ key: String) throws(ConfigurationError) -> FilePath? {
        guard let text = try value(key, "an absolute path in quotes", { $0.string }) else { return nil }
        guard text.hasPrefix("/"), !text.utf8.contains(0) else {
            throw error("\(key) must be an absolute path, not \"\(text)\"", at: key)
        }
        return FilePath(text)
    }

    /// Call it last, when every key was asked for.
    func refuseUnknownKeys() throws(ConfigurationError) {
        for key in content.keys.sorted() where !known.contains(key) {
            let full = (path + [key]).joined(separator: ".")
            let near = known.min { key.editDistance(to: $0) < key.editDistance(to: $1) }
            let hint =
                if let near, near.editDistance(to: key) <= 2 + key.count / 8 {
                    "did you mean '\(near)'?"
                } else {
                    "known here: " + known.sorted().joined(separator: ", ")
                }
            throw error("unknown key '\(full)'; \(hint)", at: key)
        }
    }

    func error(_ reason: String, at key: String) -> ConfigurationError {
        let place = source.place(of: path + [key])
        return ConfigurationError(file: source.file, line: place?.line, column: place?.column, reason: reason)
    }

    private mutating func value<Value>(
        _ key: String,
        _ wanted: String,
        _ read: (any TOMLValueConvertible) -> Value?
    ) throws(ConfigurationError) -> Value? {
        known.append(key)
        guard let found = content[key] else { return nil }
        guard let value = read(found) else {
            throw error("\(key) must be \(wanted), not \(Self.name(of: found.type))", at: key)
        }
        return value
    }

    private static func name(of type: TOMLType) -> String {
        switch type {
        case .table: "a table"
        case .array: "an array"
        case .string: "a string"
        case .int: "a whole number"
        case .double: "a fraction"
        case .bool: "true or false"
        case .date, .time, .dateTime: "a date or time"
        }
    }
}

extension String {
    /// How many letters must be added, taken away or exchanged (Levenshtein).
    fileprivate func editDistance(to other: String) -> Int {
        let letters = Array(other)
        var row = Array(0...letters.count)
        for (i, letter) in self.enumerated() {
            var diagonal = row[0]
            row[0] = i + 1
            for j in letters.indices {
                let substituted = diagonal + (letters[j] == letter ? 0 : 1)
                diagonal = row[j + 1]
                row[j + 1] = Swift.min(substituted, row[j] + 1, row[j + 1] + 1)
            }
        }
        return row[letters.count]
    }
}
