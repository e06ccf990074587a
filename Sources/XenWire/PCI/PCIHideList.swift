// Cards that the host must not use: xen-pciback's `hide`, on the kernel's command line and elsewhere.

/// A list of cards as xen-pciback's `hide` parameter has it: `(08:05.0)(0000:09:00.*)`.
///
/// xen-pciback gives up at the first item it cannot read, with all that are behind it. Here such an item is a warning,
/// and the others count: a typing error must not hand a card to the host's drivers.
public struct PCIHideList: Hashable, Sendable {
    public private(set) var cards: [PCIAddressPattern] = []
    /// One for each item that makes no sense.
    public private(set) var faults: [PCITextFault] = []

    /// Reads the text of one parameter.
    public init(_ text: String) {
        var rest = Substring(text)
        while true {
            rest = rest.drop { $0.isWhitespace }
            guard let first = rest.first else { return }
            guard first == "(", let end = rest.firstIndex(of: ")") else {
                faults.append(.hideList(String(rest)))
                // A parenthesis further on begins an item again.
                guard let next = rest.dropFirst().firstIndex(of: "(") else { return }
                rest = rest[next...]
                continue
            }
            add(String(rest[rest.index(after: rest.startIndex)..<end]))
            rest = rest[rest.index(after: end)...]
        }
    }

    /// Reads the parameters `xen-pciback.hide=` and `pciback.hide=` (2.6.18's name) of a kernel's command line, as in
    /// /proc/cmdline. Of each name the last one counts, as in the kernel; the two together.
    public init(commandLine: String) {
        var texts: [String: String] = [:]
        for argument in PCIHideList.arguments(of: commandLine) {
            let halves = argument.split(separator: "=" as Character, maxSplits: 1, omittingEmptySubsequences: false)
            guard halves.count == 2 else { continue }
            // The kernel takes - and _ for the same in names of parameters.
            let name = String(halves[0].map { $0 == "_" ? "-" : $0 })
            guard name == "xen-pciback.hide" || name == "pciback.hide" else { continue }
            texts[name] = String(halves[1])
        }
        self.init("")
        for name in ["xen-pciback.hide", "pciback.hide"] {
            guard let text = texts[name] else { continue }
            let list = PCIHideList(text)
            cards += list.cards.filter { !cards.contains($0) }
            faults += list.faults
        }
    }

    /// Adds single items, without parentheses.
    public mutating func add(_ items: [String]) {
        for item in items { add(item) }
    }

    /// Whether the card is one of these.
    public func hides(_ address: PCIAddress) -> Bool { cards.contains { $0.matches(address) } }

    private mutating func add(_ text: String) {
        do throws(PCITextFault) {
            let card = try PCIAddressPattern(parsing: text)
            if !cards.contains(card) { cards.append(card) }
        } catch {
            faults.append(error)
        }
    }

    /// Words between blanks, where blanks between quotation marks belong to the word (Linux, lib/cmdline.c,
    /// `next_arg`).
    private static func arguments(of line: String) -> [String] {
        var words: [String] = []
        var word = ""
        var quoted = false
        for character in line {
            if character == "\"" {
                quoted.toggle()
            } else if character.isWhitespace, !quoted {
                if !word.isEmpty { words.append(word) }
                word = ""
            } else {
                word.append(character)
            }
        }
        if !word.isEmpty { words.append(word) }
        return words
    }
}
