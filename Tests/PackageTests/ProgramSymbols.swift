// The names of a linked program's symbols, from its ELF symbol tables (elf(5)).

import Foundation

/// All names in `.symtab` and `.dynsym` of a 64-bit little-endian ELF file.
struct ProgramSymbols {
    private let names: [String]

    struct NotELF: Error { let path: String }

    init(_ file: URL) throws {
        let bytes = try Data(contentsOf: file, options: .alwaysMapped)
        func number(_ offset: Int, _ count: Int) throws -> Int {
            guard offset >= 0, offset + count <= bytes.count else { throw NotELF(path: file.path) }
            return (0..<count).reduce(0) { $0 | Int(bytes[offset + $1]) << (8 * $1) }
        }
        guard bytes.prefix(6) == Data([0x7f, 0x45, 0x4c, 0x46, 2, 1]) else { throw NotELF(path: file.path) }
        // Elf64_Ehdr: e_shoff, e_shentsize, e_shnum.
        let (table, size, count) = try (number(40, 8), number(58, 2), number(60, 2))
        var found: [String] = []
        for section in 0..<count {
            let header = table + section * size
            // Elf64_Shdr: sh_type is SHT_SYMTAB or SHT_DYNSYM; sh_link is the section with the names.
            guard [2, 11].contains(try number(header + 4, 4)) else { continue }
            let link = table + (try number(header + 40, 4)) * size
            let (offset, length) = try (number(link + 24, 8), number(link + 32, 8))
            guard offset + length <= bytes.count else { throw NotELF(path: file.path) }
            found += bytes[offset..<offset + length].split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
        }
        names = found
    }

    func names(containing word: String) -> [String] { names.filter { $0.contains(word) } }
}
