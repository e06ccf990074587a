// Tables, reports and histograms as people see them.

import ControlProtocol
import Testing

@Suite struct TextTests {
    private static func device(_ domain: Int, _ name: String?, _ node: String?, problem: String? = nil) -> Device {
        Device(
            path: "backend/vbd3/\(domain)/51712",
            kind: "vbd3",
            domain: domain,
            domainName: name,
            index: 51712,
            node: node,
            backendState: "connected",
            frontendState: "connected",
            phase: "serving",
            worker: 4711,
            problem: problem
        )
    }

    @Test func columnsStandBelowEachOther() {
        let reply = List.Reply(devices: [
            Self.device(7, "web1", "xvda"), Self.device(12, "a-long-name", nil, problem: "no\u{1B}[2Jtrouble\n"),
        ])
        #expect(
            reply.text == """
                DOMAIN  NAME         DEVICE      KIND  BACKEND    FRONTEND   WORKER  PHASE    PROBLEM
                7       web1         xvda        vbd3  connected  connected  4711    serving  -
                12      a-long-name  vbd3/51712  vbd3  connected  connected  4711    serving  no?[2Jtrouble?

                """
        )
        #expect(List.Reply(devices: []).text == "no devices\n")
        // No problem anywhere: no such column.
        #expect(List.Reply(devices: [Self.device(7, nil, "xvda")]).text.contains("PROBLEM") == false)
    }

    @Test(
        arguments: [
            (0, "0 B"), (1, "512 B"), (2, "1 KiB"), (3, "1.5 KiB"), (20 << 21, "20 GiB"), (1 << 32, "2 TiB"),
            (Int64.max, "4194304 PiB"), (2047, "1023.5 KiB"),
        ] as [(Int64, String)]
    )
    func sizes(_ sectors: Int64, _ text: String) {
        let disk = Disk(
            device: Self.device(7, nil, "xvda"),
            DiskFacts(target: "/a", readOnly: true, cdrom: false, sectors: sectors)
        )
        #expect(BlockList.Reply(disks: [disk]).text.contains("  \(text)  "))
    }

    @Test func cardsAreListedFromTheirFacts() {
        var device = Self.device(7, "web1", nil)
        device.kind = "vif"
        device.index = 0
        var facts = CardFacts()
        (facts.mac, facts.interface, facts.bridge) = ("00:16:3e:01:02:03", "vif7.0", "xenbr0")
        (facts.mtu, facts.queues) = (1500, 4)
        (facts.txPackets, facts.txBytes, facts.txDropped, facts.rxPackets, facts.rxBytes) = (1, 2, 3, 4, 5)
        let text = NetworkList.Reply(cards: [NetworkCard(device: device, facts)]).text
        let lines = text.split(separator: "\n").map { $0.split(separator: " ").map(String.init) }
        #expect(lines.count == 2)
        #expect(
            lines.last == [
                "vif/0", "00:16:3e:01:02:03", "connected", "vif7.0", "xenbr0", "1500", "4", "1", "2", "3", "4", "5",
                "0",
            ]
        )
        #expect(NetworkList.Reply(cards: []).text == "no network cards\n")
    }

    @Test func aHistogramShowsItsShape() {
        var buckets = [Int64](repeating: 0, count: 24)
        buckets[0] = 1
        buckets[7] = 800
        buckets[8] = 190
        buckets[12] = 9
        buckets[23] = 1
        let text = Report.Histogram(name: "reads", buckets: buckets).text
        let lines = text.split(separator: "\n").map(String.init)
        #expect(lines.first == "latency of reads: p50 < 128 µs, p99 < 256 µs, 1001 measured")
        #expect(lines.count == 25)
        #expect(lines[1] == "  < 1 µs             1  .")
        #expect(lines[8] == "  64 µs … 128 µs   800  " + String(repeating: "#", count: 40))
        #expect(lines[11] == "  512 µs … 1 ms      0")
        #expect(lines[24] == "  > 4 s              1  .")
        #expect(Report.Histogram(name: "x", buckets: []).text == "latency of x: none measured\n")
        #expect(Report.Histogram(name: "x", buckets: [0, 0]).text == "latency of x: none measured\n")
        // Whatever a daemon sends: no trap.
        _ = Report.Histogram(name: "x", buckets: [Int64.max, Int64.max, -5, 3]).text
        _ = Report.Histogram(name: "x", buckets: [7]).text
        _ = Report.Histogram(name: "x", buckets: [5, -5_000_000, 9]).text
        _ = Report.Histogram(name: "x", buckets: [Int64](repeating: 1, count: 100)).text
    }

    @Test func longCounterNamesKeepTheirDistance() {
        var report = Report(device: Self.device(7, "web1", "xvda"))
        report.counters = [.init(name: "persistent-segments", value: 12064), .init(name: "turns", value: 385)]
        #expect(report.text.contains("\n    persistent-segments  12064\n    turns                385\n"))
        #expect(report.text.contains("\n  worker                 process 4711\n"))
    }

    @Test func aReportShowsEverything() {
        let report = Report(
            device: Self.device(7, "web1", "xvda"),
            facts: [.init(name: "image", value: "/a.img")],
            counters: [.init(name: "reads", value: 12), .init(name: "writes", value: 3)],
            latencies: [.init(name: "requests", buckets: [0, 4])],
            lastFault: "bad segment",
            lastFailure: nil
        )
        #expect(
            report.text == """
                xvda
                  device        backend/vbd3/7/51712
                  domain        7 (web1)
                  state         backend connected, frontend connected
                  phase         serving
                  worker        process 4711
                  image         /a.img
                  last fault    bad segment
                  last failure  none
                  counters
                    reads       12
                    writes      3
                  latency of requests: p50 > 1 µs, p99 > 1 µs, 4 measured
                    > 1 µs           4  ########################################

                """
        )
    }
}
