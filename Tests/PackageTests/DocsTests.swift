// Holds the documentation to the tree: what stands in backticks as a symbol, a file or a path exists.

import Foundation
import Testing

@Suite struct DocsTests {
    /// What the documentation may name.
    private struct Tree {
        var words: Set<String> = []
        var paths: Set<String> = []

        init() throws {
            let parts = ["Sources", "Tests", "systemd", "udev", ".ci"]
            for part in parts {
                let base = root.appendingPathComponent(part)
                paths.insert(part)
                for path in try FileManager.default.subpathsOfDirectory(atPath: base.path) {
                    paths.insert("\(part)/\(path)")
                    let name = path.split(separator: "/").last ?? ""
                    words.insert(String(name.prefix { $0 != "." && $0 != "+" }))
                    if name.hasSuffix(".md") { continue }
                    guard let text = try? String(contentsOf: base.appendingPathComponent(path), encoding: .utf8) else {
                        continue
                    }
                    for word in text.split(whereSeparator: { !($0.isLetter || $0.isNumber || $0 == "_") }) {
                        words.insert(String(word))
                    }
                }
            }
        }

        func has(file name: String) -> Bool { paths.contains { $0 == name || $0.hasSuffix("/" + name) } }
    }

    /// Why a text in backticks is wrong; nil if it is right, or none of ours: a key of XenStore, a word of the kernel's.
    private func objection(to text: String, in tree: Tree) -> String? {
        let first = String(text.prefix { $0 != " " })
        if first.prefixMatch(of: /(Sources|Tests|systemd|udev|\.ci)\//) != nil {
            let path = first.hasSuffix("/") ? String(first.dropLast()) : first
            return tree.paths.contains(path) ? nil : "there is no such path"
        }
        if first.wholeMatch(of: /[A-Za-z\/+]+\.(swift|md|varlink)/) != nil {
            return tree.has(file: first) ? nil : "there is no such file"
        }
        if first.wholeMatch(of: /\+[A-Z]\w*/) != nil {
            return tree.paths.contains { $0.hasSuffix(first + ".swift") } ? nil : "no file's name ends so"
        }
        // `NetBoard`, `BackRing.poll`, `rest(after:)`, `isSmall`: a word with a capital behind a small letter or before one.
        let isSymbol = /([A-Za-z]*[a-z][A-Z][A-Za-z0-9]*|[A-Z][a-z][A-Za-z0-9]*)([.(].*)?/
        guard text.wholeMatch(of: isSymbol) != nil else { return nil }
        let words = text.prefix { $0 != "(" }.split { !($0.isLetter || $0.isNumber || $0 == "_") }
        let unknown = words.first { !tree.words.contains(String($0)) }
        return unknown.map { "no source says \($0)" }
    }

    @Test func whatIsNamedExists() throws {
        let tree = try Tree()
        let documents = tree.paths.filter { $0.hasSuffix(".md") && !$0.hasSuffix("Changelog.md") } + ["README.md"]
        var checked = 0
        for document in documents.sorted() {
            let text = try String(contentsOf: root.appendingPathComponent(document), encoding: .utf8)
            var isCode = false
            for (number, line) in text.split(separator: "\n", omittingEmptySubsequences: false).enumerated() {
                if line.hasPrefix("```") { isCode.toggle() }
                if isCode { continue }
                for match in line.matches(of: /`+([^`]+)`+/) {
                    checked += 1
                    if let objection = objection(to: String(match.1), in: tree) {
                        Issue.record("\(document):\(number + 1): `\(match.1)`: \(objection)")
                    }
                }
            }
        }
        #expect(checked > 500)
    }

    /// The search finds what is wrong.
    @Test(arguments: [
        "Sources/Nowhere", "BlockBackend+Nowhere.swift", "+Nowhere", "BlockNowhere", "BlockBackend.nowhereAtAll",
        "nowhereAtAll(after:)",
    ])
    func whatDoesNotExistIsFound(_ text: String) throws {
        // Written so that this file does not hold the words themselves.
        let missing = text.replacing("owhere", with: "owhere" + "Else")
        #expect(objection(to: missing, in: try Tree()) != nil, "\(missing)")
    }

    @Test(arguments: ["state", "backend/vbd", "XENBUS_PATH", "xl devd", "BackRing", "BackRing.poll", "take(atMost:)"])
    func whatIsSomebodyElsesOrExistsIsLeftAlone(_ text: String) throws {
        #expect(objection(to: text, in: try Tree()) == nil)
    }
}
