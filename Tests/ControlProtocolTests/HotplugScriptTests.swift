// systemd/block-xenback as libxl runs it, with a stand-in for xenback and for XenStore's tools.

import Foundation
import Testing

@Suite struct HotplugScriptTests {
    /// What the script did.
    struct Outcome {
        var status: Int32
        var errors: String
        /// The calls of the stand-ins, in order.
        var calls: [String]
    }

    private static let script = URL(fileURLWithPath: #filePath)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .appendingPathComponent("systemd/block-xenback")

    /// - Parameters:
    ///   - xenback: the body of the stand-in; nil: not installed.
    ///   - path: XENBUS_PATH; nil: not set.
    ///   - isThere: whether the backend's directory exists.
    private static func run(
        _ arguments: [String],
        xenback: String?,
        path: String? = "backend/vbd/7/51712",
        isThere: Bool = true
    ) throws -> Outcome {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("script-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        func tool(_ name: String, _ body: String) throws {
            let file = folder.appendingPathComponent(name)
            let text = "#!/bin/sh\nprintf '%s\\n' \"\(name) $*\" >>\(folder.path)/calls\n\(body)\n"
            try text.write(to: file, atomically: true, encoding: .utf8)
            try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: file.path)
        }
        try tool("xenstore-write", "exit 0")
        try tool("xenstore-read", isThere ? "exit 0" : "exit 1")
        if let xenback { try tool("xenback", xenback) }
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        process.arguments = [script.path] + arguments
        process.environment = ["PATH": "\(folder.path):/usr/bin:/bin", "XENBACK_HOTPLUG_TIMEOUT": "1"]
        if let path { process.environment?["XENBUS_PATH"] = path }
        let errors = Pipe()
        process.standardError = errors
        try process.run()
        let text = String(decoding: errors.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        process.waitUntilExit()
        let calls = (try? String(contentsOf: folder.appendingPathComponent("calls"), encoding: .utf8)) ?? ""
        return Outcome(
            status: process.terminationStatus,
            errors: text,
            calls: calls.split(separator: "\n").map(String.init).filter { !$0.hasPrefix("xenstore-read") }
        )
    }

    @Test(arguments: ["add", "remove"]) func success(_ event: String) throws {
        let outcome = try Self.run([event], xenback: "exit 0")
        #expect(outcome.status == 0 && outcome.errors.isEmpty)
        #expect(outcome.calls == ["xenback hotplug --timeout 1 block \(event) backend/vbd/7/51712"])
    }

    @Test func theReasonReachesXenStoreAndStandardError() throws {
        let outcome = try Self.run(
            ["add"],
            xenback: "echo '/a.img: no such \"file\"' >&2; echo 'second $line' >&2; exit 1"
        )
        #expect(outcome.status == 1)
        #expect(outcome.errors == "block-xenback: /a.img: no such \"file\" second $line\n")
        #expect(
            outcome.calls.dropFirst() == [
                "xenstore-write backend/vbd/7/51712/hotplug-error /a.img: no such \"file\" second $line",
                "xenstore-write backend/vbd/7/51712/hotplug-status error",
            ]
        )
    }

    /// xenstore-write turns `\\` into `\`, and would take `\0` for a NUL.
    @Test func backslashesSurviveXenStore() throws {
        let outcome = try Self.run(["add"], xenback: "printf '%s' '/a\\0b.img' >&2; exit 1")
        #expect(outcome.errors == "block-xenback: /a\\0b.img\n")
        #expect(outcome.calls.contains("xenstore-write backend/vbd/7/51712/hotplug-error /a\\\\0b.img"))
    }

    @Test func aReasonIsNeverMissingOrTooLong() throws {
        let silent = try Self.run(["add"], xenback: "exit 5")
        #expect(silent.status == 1 && silent.errors.contains("xenback ended with status 5"))
        let long = try Self.run(["add"], xenback: "head -c 100000 /dev/zero | tr '\\0' x; exit 1")
        #expect(long.status == 1 && long.errors.count < 2100)
        let absent = try Self.run(["add"], xenback: nil)
        #expect(absent.status == 1 && absent.errors.contains("xenback is not installed"))
    }

    @Test func itEndsBeforeLibxlLosesPatience() throws {
        let begin = ContinuousClock.now
        let outcome = try Self.run(["add"], xenback: "exec sleep 60")
        #expect(outcome.status == 1 && outcome.errors.contains("no answer within 1 s"))
        #expect(ContinuousClock.now - begin < .seconds(20))
    }

    @Test func removingNeverFails() throws {
        let outcome = try Self.run(["remove"], xenback: "echo 'no such device' >&2; exit 1")
        #expect(outcome.status == 0 && outcome.errors.contains("no such device"))
        #expect(outcome.calls.count == 1)
    }

    @Test func aDirectoryThatIsGoneIsNotMadeAgain() throws {
        let outcome = try Self.run(["add"], xenback: "echo gone >&2; exit 1", isThere: false)
        #expect(outcome.status == 1 && outcome.calls.count == 1)
    }

    @Test(
        arguments: [
            ([], "backend/vbd/7/51712", "called with ''"), (["online"], "backend/vbd/7/51712", "called with 'online'"),
            (["add"], nil, "XENBUS_PATH is not set"), (["add"], "device/vbd/51712", "no backend's directory"),
        ] as [([String], String?, String)]
    )
    func badCalls(_ arguments: [String], _ path: String?, _ reason: String) throws {
        let outcome = try Self.run(arguments, xenback: "exit 0", path: path)
        #expect(outcome.status == 1 && outcome.errors.contains(reason))
        #expect(!outcome.calls.contains { $0.hasPrefix("xenback") })
    }
}
