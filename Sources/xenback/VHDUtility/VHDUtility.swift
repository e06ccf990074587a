// The commands of blktap's vhd-util, with their arguments, words and exit codes.

import DiskImages
import Glibc
import ImageFormats
import SystemPackage

/// `vhd-util COMMAND [OPTIONS]`: the same commands as a program of that name and as `xenback vhd-util`.
///
/// Exit codes are errno's numbers, 0 for success; sizes are in MiB where vhd-util has them so.
struct VHDUtility {
    /// Where output goes; tests keep it.
    var put: ([UInt8]) -> Void = { bytes in VHDUtility.write(bytes, to: STDOUT_FILENO) }
    var complain: (String) -> Void = { text in VHDUtility.write(Array(text.utf8), to: STDERR_FILENO) }

    /// A command's arguments make no sense; its usage is printed.
    struct Usage: Error {
        /// What it exits with.
        var status = EINVAL
    }

    private static func write(_ bytes: [UInt8], to descriptor: CInt) {
        var rest = bytes[...]
        while !rest.isEmpty {
            let count = unsafe rest.withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return }
            rest = rest.dropFirst(count)
        }
    }

    func print(_ text: String) { put(Array((text + "\n").utf8)) }

    /// A command: its options as getopt(3) has them, its usage, and what it does.
    struct Command: Sendable {
        var name: String
        var options: String
        var usage: String
        var run: @Sendable (VHDUtility, VHDArguments) throws -> CInt
    }

    static let commands: [Command] = [
        create, snapshot, query, read, set, repair, resize, fill, coalesce, modify, scan, check, revert,
    ]

    /// - Parameter arguments: without the program's name.
    /// - Returns: the exit code.
    func run(_ arguments: [String]) -> CInt {
        guard let name = arguments.first else { return help() }
        guard let command = VHDUtility.commands.first(where: { $0.name == name }) else {
            complain("invalid COMMAND \(name)\n")
            return help()
        }
        let words = arguments.dropFirst().filter { $0 != "--debug" }
        do {
            return try command.run(self, try VHDArguments(words, command.options))
        } catch let usage as Usage {
            print(command.usage)
            return usage.status
        } catch let wrong as VHDArguments.Wrong {
            complain("\(name): \(wrong.text)\n")
            print(command.usage)
            return EINVAL
        } catch let failure as VHDFailure {
            complain("vhd-util: \(failure)\n")
            return failure.errno.rawValue
        } catch {
            complain("vhd-util: \(error)\n")
            return EIO
        }
    }

    private func help() -> CInt {
        print("usage: vhd-util COMMAND [OPTIONS]")
        print("COMMAND := { \(VHDUtility.commands.map(\.name).joined(separator: " | ")) }")
        return 0
    }

    /// Opens an image as the commands do that print `error opening NAME: -2`.
    func open(_ path: String, _ opening: VHDOpening = []) throws -> VHDFile {
        do throws(VHDFailure) {
            return try VHDFile.open(path, opening)
        } catch {
            print("error opening \(path): \(-error.errno.rawValue)")
            throw error
        }
    }
}

/// Options of one letter, as getopt(3) reads them: in any order, joined, their values attached or not.
struct VHDArguments {
    struct Wrong: Error { var text: String }

    private(set) var options: [(letter: Character, value: String)] = []
    /// What is no option.
    private(set) var rest: [String] = []

    /// - Parameter letters: those that are known; one with a colon behind it has a value.
    init(_ words: some Sequence<String>, _ letters: String) throws {
        var left = Array(words)[...]
        while let word = left.popFirst() {
            guard word.hasPrefix("-"), word != "-" else {
                rest.append(word)
                continue
            }
            if word == "--" {
                rest += left
                break
            }
            var letter = word.dropFirst()
            while let option = letter.popFirst() {
                guard option != ":", let place = letters.firstIndex(of: option) else {
                    throw Wrong(text: "invalid option -- '\(option)'")
                }
                let next = letters.index(after: place)
                guard next < letters.endIndex, letters[next] == ":" else {
                    options.append((option, ""))
                    continue
                }
                if letter.isEmpty {
                    guard let value = left.popFirst() else {
                        throw Wrong(text: "option requires an argument -- '\(option)'")
                    }
                    options.append((option, value))
                } else {
                    options.append((option, String(letter)))
                }
                break
            }
        }
    }

    /// The last one counts.
    subscript(letter: Character) -> String? { options.last { $0.letter == letter }?.value }
    func has(_ letter: Character) -> Bool { self[letter] != nil }

    /// The image, and nothing that is no option.
    func name() throws -> String {
        guard !has("h"), rest.isEmpty, let name = self["n"] else { throw VHDUtility.Usage() }
        return name
    }

    /// A number as strtoull(3) reads it: digits at the beginning, 0 if there are none.
    func number(_ letter: Character) -> UInt64? { self[letter].map(VHDArguments.number) }

    static func number(_ text: String) -> UInt64 {
        let digits = text.drop { $0 == " " || $0 == "+" }.prefix { $0.isASCII && $0.isNumber }
        return digits.isEmpty ? 0 : UInt64(digits) ?? .max
    }

    /// A size in MiB as bytes.
    func megabytes(_ letter: Character) throws -> UInt64? {
        guard let number = number(letter) else { return nil }
        guard number <= 1 << 30 else {
            throw VHDFailure(self["n"] ?? "", .invalidArgument, "\(number) MiB is too large")
        }
        return number << 20
    }
}
