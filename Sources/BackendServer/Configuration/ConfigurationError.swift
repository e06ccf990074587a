// What is wrong with the configuration file, and where.

/// Printed as `file:line:column: reason`, as compilers do.
public struct ConfigurationError: Error, Equatable, Sendable, CustomStringConvertible {
    public let file: String
    /// Both from 1; nil where the error has no place.
    public let line: Int?
    public let column: Int?
    public let reason: String
    let isMissingFile: Bool

    init(file: String, line: Int?, column: Int?, reason: String, isMissingFile: Bool = false) {
        self.file = file
        self.line = line
        self.column = column
        self.reason = reason
        self.isMissingFile = isMissingFile
    }

    public var description: String {
        let place = [line, column].compactMap { $0 }.map { ":\($0)" }.joined()
        return "\(file)\(place): \(reason)"
    }
}
