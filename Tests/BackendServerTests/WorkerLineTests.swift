// A worker's command line: what the broker writes is what the program reads; all else is left to ArgumentParser.

import Logging
import Testing
import XenWire

@testable import BackendServer

@Suite struct WorkerLineTests {
    static let lines = [
        WorkerLine(domain: DomainID(7)!),
        WorkerLine(domain: DomainID(0)!, config: "/etc/x y.toml"),
        WorkerLine(domain: DomainID(32751)!, config: "--domain", runDirectory: "/run/x", logLevel: .trace),
        WorkerLine(domain: DomainID(1)!, logLevel: .critical),
        WorkerLine(domain: nil, runDirectory: "-"),
    ]

    @Test(arguments: lines)
    func whatIsWrittenIsRead(_ line: WorkerLine) {
        #expect(WorkerLine(line.words) == line)
    }

    @Test(arguments: [
        [], ["--domain"], ["--domain", "x"], ["--domain", "-1"], ["--domain", "7", "--help"], ["--help"],
        ["--domain", "7", "--log-level", "loud"], ["--domain=7"], ["--domain", "7", "--domain", "8"],
        ["--domain", "7", "--unknown", "1"], ["--config", "--domain", "7", "8"],
    ])
    func theRestIsForPeople(_ words: [String]) {
        #expect(WorkerLine(words) == nil)
    }
}
