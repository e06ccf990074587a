// Holds the tree to the house's plan: who may import whom, where `unsafe` may stand, what every file starts with.

import Foundation
import Testing

/// The plan of Architecture.md: for each target the targets and libraries it may import.
private let plan: [String: Set<String>] = [
    "XenWire": [],
    "SharedRing": ["XenWire", "CRing", "SystemPackage"],
    "NetChannel2": ["SharedRing", "XenWire", "SystemPackage"],
    "Hypervisor": ["SharedRing", "XenWire", "SystemPackage"],
    "HostIO": ["SharedRing", "CURing", "CLinux", "SystemPackage"],
    "XenHypervisor": ["Hypervisor", "SharedRing", "XenWire", "HostIO", "CXen", "CLinux", "SystemPackage"],
    "SimulatedHypervisor": ["Hypervisor", "SharedRing", "XenWire", "HostIO", "CLinux", "SystemPackage"],
    "HypervisorContract": ["Hypervisor", "SharedRing", "XenWire", "CLinux", "SystemPackage"],
    "ImageFormats": ["SharedRing", "SystemPackage"],
    "DiskImages": ["ImageFormats", "HostIO", "SharedRing", "CCodecs", "CLinux", "SystemPackage"],
    "HostNetwork": ["HostIO", "SharedRing", "CNetlink", "CURing", "CLinux", "SystemPackage"],
    "HostUSB": ["HostIO", "SharedRing", "CUSB", "CLinux", "SystemPackage"],
    "HostPCI": ["HostIO", "CLinux", "SystemPackage"],
    "BackendCore": ["Hypervisor", "SharedRing", "XenWire", "HostIO", "Logging", "SystemPackage"],
    "BlockBackend": [
        "BackendCore", "DiskImages", "HostIO", "Hypervisor", "SharedRing", "XenWire", "Logging", "SystemPackage",
    ],
    "NetBackend": [
        "BackendCore", "HostNetwork", "HostIO", "Hypervisor", "NetChannel2", "SharedRing", "XenWire", "Logging",
        "SystemPackage",
    ],
    "USBBackend": [
        "BackendCore", "HostUSB", "HostIO", "Hypervisor", "SharedRing", "XenWire", "Logging", "SystemPackage",
    ],
    "PCIBackend": [
        "BackendCore", "HostPCI", "HostIO", "Hypervisor", "SharedRing", "XenWire", "Logging", "SystemPackage",
    ],
    "ControlProtocol": ["HostIO", "XenWire", "SystemPackage", "FoundationEssentials"],
    "FrontendDrivers": ["Hypervisor", "NetChannel2", "SharedRing", "XenWire", "HostIO", "SystemPackage"],
    "SimulatedHost": [
        "FrontendDrivers", "HostNetwork", "HostUSB", "HostPCI", "HostIO", "Hypervisor", "SharedRing", "XenWire",
        "CLinux", "SystemPackage",
    ],
    "BackendServer": [
        "BlockBackend", "NetBackend", "USBBackend", "PCIBackend", "BackendCore", "DiskImages", "HostNetwork",
        "HostUSB", "HostPCI",
        "HostIO",
        "Hypervisor",
        "SharedRing", "XenWire", "ControlProtocol", "CLinux", "Logging", "SystemPackage", "ArgumentParser", "TOMLKit",
        "FoundationEssentials",
    ],
    "xenbackd": [
        "BackendServer", "XenHypervisor", "Hypervisor", "XenWire", "Logging", "ArgumentParser", "SystemPackage",
    ],
]

/// Targets whose job is memory or system calls; everywhere else `unsafe` has no place.
private let unsafeTargets: Set<String> = [
    "SharedRing", "XenHypervisor", "SimulatedHypervisor", "SimulatedHost", "HostIO", "HostNetwork", "HostUSB",
    "HostPCI",
    "DiskImages", "BackendServer", "xenback", "xenback-bench",
]

/// Modules of the toolchain that anybody may import.
private let toolchain: Set<String> = ["Glibc", "Synchronization", "Swift", "_Concurrency", "Musl", "Dispatch"]

let root = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

private struct SourceFile {
    let target: String
    let path: String
    let lines: [Substring]

    var imports: [String] {
        lines.compactMap { line in
            let words = line.split(separator: " ")
            let attributes: Set<Substring> = [
                "public", "internal", "package", "private", "@preconcurrency", "@testable",
            ]
            guard let at = words.firstIndex(of: "import"), at < 3, at + 1 < words.count,
                words[..<at].allSatisfy(attributes.contains)
            else { return nil }
            return String(words[at + 1])
        }
    }
}

private func swiftFiles(below folder: String) throws -> [SourceFile] {
    let base = root.appendingPathComponent(folder)
    let all = try FileManager.default.subpathsOfDirectory(atPath: base.path)
    return try all.filter { $0.hasSuffix(".swift") }.sorted().map { path in
        let text = try String(contentsOf: base.appendingPathComponent(path), encoding: .utf8)
        return SourceFile(
            target: String(path.prefix { $0 != "/" }),
            path: folder + "/" + path,
            lines: text.split(separator: "\n", omittingEmptySubsequences: false)
        )
    }
}

@Suite struct FloorTests {
    @Test func arrowsPointDown() throws {
        let files = try swiftFiles(below: "Sources")
        #expect(files.count > 20)
        for file in files {
            guard let allowed = plan[file.target] else { continue }
            for module in file.imports where !allowed.contains(module) && !toolchain.contains(module) {
                Issue.record("\(file.path) imports \(module), which is not on a lower floor of \(file.target)")
            }
        }
    }

    @Test func everyLibraryTargetIsInThePlan() throws {
        let programs: Set<String> = ["xenback", "xenback-bench"]
        let targets = Set(try swiftFiles(below: "Sources").map(\.target))
        for target in targets.subtracting(programs) {
            #expect(plan[target] != nil, "\(target) is missing in the plan of FloorTests")
        }
    }

    @Test func fullFoundationIsNotShipped() throws {
        for file in try swiftFiles(below: "Sources") {
            #expect(!file.imports.contains("Foundation"), "\(file.path) would bring ICU into the binary")
        }
    }

    /// No target below the daemon may name a simulator, and the linked program must not contain one: its own symbols
    /// are asked, since a manifest's words say nothing about what a library carries along.
    @Test func theDaemonHoldsNoSimulator() throws {
        let programs = root.appendingPathComponent(".build/debug")
        let daemon = try ProgramSymbols(programs.appendingPathComponent("xenbackd"))
        #expect(daemon.names(containing: "BackendServer").count > 100)
        for word in ["Simulat", "SocketNetwork", "PacketExchange", "FrontendDrivers"] {
            let found = daemon.names(containing: word)
            #expect(found.isEmpty, "\(found.count) symbols of xenbackd contain \(word): \(found.prefix(3))")
        }
        // The demo has them all, so the search finds what is there.
        let demo = try ProgramSymbols(programs.appendingPathComponent("xenback"))
        for word in ["SimulatedUSB", "SimulatedToolstack", "SocketNetwork", "PacketExchange", "FrontendDrivers"] {
            #expect(!demo.names(containing: word).isEmpty, "\(word)")
        }
    }

    /// libxenctrl, libxenguest and libxenlight have the Xen release in their sonames: a program linked with one of them
    /// starts on that release only.
    @Test func noLibraryOfOneXenReleaseIsLinked() throws {
        let text = try String(contentsOf: root.appendingPathComponent("Sources/CXen/module.modulemap"), encoding: .utf8)
        let links = text.split(separator: "\n").compactMap { line in
            line.contains("link ") ? line.split(separator: "\"").dropFirst().first.map { String($0) } : nil
        }
        #expect(!links.isEmpty && Set(links).isSubset(of: ["xenevtchn", "xengnttab", "xentoollog", "xencall"]))
    }

    /// `QueueTurns` says why.
    @Test func queuesAreFinal() throws {
        var queues = 0
        for file in try swiftFiles(below: "Sources") where file.lines.contains(where: { $0.contains(": QueueTurns") }) {
            for line in file.lines where line.contains("actor ") && !line.contains("//") {
                #expect(line.contains("final actor "), "\(file.path): \(line)")
                queues += 1
            }
        }
        #expect(queues >= 4)
    }

    @Test func unsafeStandsOnlyWhereMemoryIsTheJob() throws {
        for file in try swiftFiles(below: "Sources") where !unsafeTargets.contains(file.target) {
            for (number, line) in file.lines.enumerated() {
                let code = line.drop { $0 == " " }
                // An actor's pin to its loop is a declaration that the language itself wants marked.
                if code.hasPrefix("//") || code.contains("nonisolated var unownedExecutor") { continue }
                let words = code.split { !($0.isLetter || $0 == "_" || $0 == "@") }
                #expect(!words.contains("unsafe"), "\(file.path):\(number + 1)")
            }
        }
    }

    @Test func everyFileSaysItsJobFirst() throws {
        for file in try swiftFiles(below: "Sources") + swiftFiles(below: "Tests") {
            #expect(file.lines.first?.hasPrefix("//") == true, "\(file.path)")
        }
    }

    /// A longer file says why in its first ten lines with the words "longer than 400 lines because".
    @Test func filesStayReadable() throws {
        for file in try swiftFiles(below: "Sources") where file.lines.count > 401 {
            let excused = file.lines.prefix(10).contains { $0.contains("longer than 400 lines because") }
            #expect(excused, "\(file.path) has \(file.lines.count) lines")
        }
    }
}
