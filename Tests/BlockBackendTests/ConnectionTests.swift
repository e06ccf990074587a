// The frontend's keys: every number is checked, nothing traps.

internal import BackendCore
internal import Testing
internal import XenWire

@testable internal import BlockBackend

@Suite struct ConnectionTests {
    let capabilities = BlockCapabilities(maxQueues: 4)

    private func connect(_ keys: [String: String]) -> Result<BlockConnection, FrontendNodeFault> {
        // The second round must ask for exactly what the parser then looks at.
        let asked = Set(BlockConnection.firstKeys + BlockConnection.furtherKeys(FrontendNodes(keys), capabilities))
        return Result { () throws(FrontendNodeFault) in
            try BlockConnection(FrontendNodes(keys.filter { asked.contains($0.key) }), capabilities)
        }
    }

    private let single = ["ring-ref": "8", "event-channel": "3", "protocol": "x86_64-abi"]

    @Test func oneQueueOnePage() throws {
        let connection = try connect(single).get()
        #expect(connection.queues == [.init(references: [GrantReference(8)], port: EventChannelPort(3))])
        #expect(connection.slotsPerQueue == 32 && !connection.usesPersistentGrants)
    }

    @Test func severalQueuesOfSeveralPages() throws {
        var keys = ["multi-queue-num-queues": "2", "ring-page-order": "1", "feature-persistent": "1"]
        for queue in 0..<2 {
            keys["queue-\(queue)/event-channel"] = "\(queue + 5)"
            for page in 0..<2 { keys["queue-\(queue)/ring-ref\(page)"] = "\(queue * 2 + page + 20)" }
        }
        let connection = try connect(keys).get()
        #expect(connection.queues.map(\.references) == [[20, 21], [22, 23]].map { $0.map(GrantReference.init) })
        #expect(connection.slotsPerQueue == 64 && connection.usesPersistentGrants)
        #expect(connection.identity(domain: "x") != connection.identity(domain: "y"))
    }

    static let wrong: [(String, String?)] = [
        ("ring-ref", nil), ("ring-ref", ""), ("ring-ref", "eight"), ("ring-ref", "-8"), ("ring-ref", "4294967296"),
        ("ring-ref", "99999999999999999999999"), ("ring-ref", " 8"), ("ring-ref", "0x8"),
        ("event-channel", nil), ("event-channel", "-1"), ("event-channel", "0"), ("event-channel", "131072"),
        ("event-channel", "18446744073709551616"), ("protocol", "vax-abi"), ("protocol", ""),
        ("multi-queue-num-queues", "0"), ("multi-queue-num-queues", "5"), ("multi-queue-num-queues", "-1"),
        ("multi-queue-num-queues", "2"), ("multi-queue-num-queues", "many"), ("ring-page-order", "5"),
        ("ring-page-order", "64"), ("ring-page-order", "-1"), ("ring-page-order", "1"),
        ("multi-queue-num-queues", "4294967295"), ("ring-page-order", "4294967295"),
    ]

    @Test(arguments: wrong)
    func wrongKeysAreFaults(key: String, value: String?) {
        var keys = single
        keys[key] = value
        #expect(throws: FrontendNodeFault.self) { try connect(keys).get() }
    }

    @Test func repeatedGrantsAndPortsAreFaults() {
        var keys = ["multi-queue-num-queues": "2"]
        for queue in 0..<2 {
            keys["queue-\(queue)/event-channel"] = "\(queue + 5)"
            keys["queue-\(queue)/ring-ref"] = "9"
        }
        #expect(throws: FrontendNodeFault.self) { try connect(keys).get() }
        keys["queue-1/ring-ref"] = "10"
        #expect(throws: Never.self) { try connect(keys).get() }
        keys["queue-1/event-channel"] = "5"
        #expect(throws: FrontendNodeFault.self) { try connect(keys).get() }
    }

    @Test func aFrontendsTextIsHarmlessInALog() throws {
        var keys = single
        keys["ring-ref"] = "\u{1B}[2J\n" + String(repeating: "A", count: 1000)
        guard case .failure(let fault) = connect(keys) else {
            Issue.record("accepted")
            return
        }
        #expect(fault.description.utf8.count < 100)
        #expect(fault.description.unicodeScalars.allSatisfy { (0x20..<0x7F).contains($0.value) })
    }
}
