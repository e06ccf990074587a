// qemu-img as an oracle. The tests' command in the README installs it.

import Glibc
import SystemPackage
import Testing

@testable import ImageFormats

/// A directory that is deleted with its last reference.
final class Folder {
    let path: String

    init() {
        var template = Array("/var/tmp/formats-XXXXXX".utf8CString)
        #expect(unsafe mkdtemp(&template) != nil)
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { _ = unsafe system("rm -rf \(path)") }
}

enum QEMU {
    /// Runs a shell command in the folder and returns its status.
    @discardableResult
    static func run(_ command: String, in folder: Folder) -> Int32 {
        let status = unsafe system("cd \(folder.path) && { \(command); } >out 2>&1")
        return (status >> 8) & 0xFF
    }

    static func output(_ folder: Folder) -> String {
        String(decoding: (try? FakeFile.contents("\(folder.path)/out")) ?? [], as: UTF8.self)
    }

    /// An image made by commands, as a file in memory; the image is `a.qcow2`.
    static func image(_ folder: Folder, _ commands: String...) throws -> FakeFile {
        for command in commands { try #require(run(command, in: folder) == 0, "\(command): \(output(folder))") }
        return try FakeFile(path: "\(folder.path)/a.qcow2")
    }

    /// What `qemu-img check` says of an image's bytes: 0 clean, 2 corrupt, 3 only leaks.
    static func check(
        _ bytes: [UInt8],
        in folder: Folder,
        name: String = "checked.qcow2",
        parent: FakeFile? = nil
    ) throws -> Int32 {
        try FakeFile.save(bytes, "\(folder.path)/\(name)")
        if let parent { try FakeFile.save(parent.bytes, "\(folder.path)/p") }
        return run("qemu-img check -f qcow2 \(name)", in: folder)
    }
}
