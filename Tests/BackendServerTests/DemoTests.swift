// `xenback demo` as a person runs it: it ends with 0, and its figures are there.

import FoundationEssentials
import Testing

#if canImport(Glibc)
    import Glibc
#endif

private struct NotStarted: Error {}

/// Runs a command line and gives what it printed and its exit status.
private func run(_ command: String) throws -> (output: String, status: CInt) {
    guard let stream = unsafe popen(command, "r") else { throw NotStarted() }
    var bytes: [UInt8] = []
    while true {
        let byte = unsafe getc(stream)
        if byte == EOF { break }
        bytes.append(UInt8(truncatingIfNeeded: byte))
    }
    let status = unsafe pclose(stream)
    return (String(decoding: bytes, as: UTF8.self), status >> 8)
}

/// Not beside other tests' processes: it measures.
@Suite(.serialized, .timeLimit(.minutes(3)))
struct DemoTests {
    private struct Outcome: Decodable {
        struct Phase: Decodable {
            var name: String
            var requests: Int
            var wrongBlocks: Int
        }
        struct Kill: Decodable {
            var process: String
            var pauseMicroseconds: Int64
        }
        struct Check: Decodable {
            var text: String
            var isRight: Bool
        }
        var phases: [Phase]
        var kills: [Kill]
        var checks: [Check]
        var expectedChecksum: String
        var fileChecksum: String
        var isVerified: Bool
    }

    @Test func theDemoVerifiesEveryByteAndPacketAcrossFiveKills() throws {
        let (output, status) = try run("\(Services.xenback) demo --json --size 4 --seconds 4")
        #expect(status == 0, "\(output)")
        let outcome = try JSONDecoder().decode(Outcome.self, from: Data(output.utf8))
        #expect(outcome.isVerified && outcome.expectedChecksum == outcome.fileChecksum)
        #expect(
            outcome.phases.map(\.name).suffix(3) == ["packet there and back", "packets, killed", "stick read, killed"]
        )
        #expect(outcome.phases.count == 6)
        #expect(outcome.phases.allSatisfy { $0.requests > 0 && $0.wrongBlocks == 0 })
        #expect(outcome.kills.map(\.process) == ["worker", "broker", "worker", "network worker", "USB worker"])
        #expect(outcome.checks.count == 7 && outcome.checks.allSatisfy(\.isRight), "\(outcome.checks)")
        // Seconds on a busy machine's debug build; a request that had to wait for the broker would take 10.
        #expect(outcome.kills.allSatisfy { $0.pauseMicroseconds < 5_000_000 })
    }

    @Test func sizesThatMakeNoSenseAreRefused() throws {
        #expect(try run("\(Services.xenback) demo --size 0 2>&1").status != 0)
        #expect(try run("\(Services.xenback) demo --seconds 100 2>&1").status != 0)
    }
}
