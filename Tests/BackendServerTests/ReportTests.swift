// Reports of devices as the control interface has them.

import BackendCore
import ControlProtocol
import Testing
import XenWire

@testable import BackendServer

@Suite struct ReportTests {
    private func text(_ report: DeviceReport) -> String { Report(report, DeviceContext(worker: 4711)).text }

    @Test func whatMeasuresNoLatencyShowsNone() throws {
        var report = DeviceReport(path: try #require(DevicePath(text: "backend/vif/7/0")), phase: "serving")
        #expect(!text(report).contains("latency"))
        report.latency = LatencyHistogram()
        #expect(text(report).hasSuffix("\n  latency of requests: none measured\n"))
        report.latency?.add(nanoseconds: 500)
        #expect(text(report).contains("1 measured"))
    }

    private func report(_ path: String, _ body: DeviceReport.Body) throws -> Report {
        var report = DeviceReport(path: try #require(DevicePath(text: path)), phase: "serving")
        report.body = body
        return Report(report, DeviceContext())
    }

    private func facts(_ report: Report) -> [String] { report.facts.map { "\($0.name): \($0.value)" } }

    /// What programs read and what people read are the same facts.
    @Test func aDiskIsDataAndWords() throws {
        var disk = DiskReport(target: "/a:b.img", isReadOnly: true, isCDROM: false)
        (disk.sectorCount, disk.logicalBlockSize, disk.connection) = (2048, 4096, "abi x86-64")
        let shown = try report("backend/vbd3/7/51712", .disk(disk))
        #expect(
            shown.disk
                == DiskFacts(target: "/a:b.img", readOnly: true, cdrom: false, sectors: 2048, logicalBlockSize: 4096)
        )
        #expect(shown.card == nil && shown.controller == nil)
        #expect(
            facts(shown) == [
                "image: /a:b.img", "mode: read-only", "size: 1048576 bytes", "sector-size: 4096",
                "connection: abi x86-64",
            ]
        )
        let empty = DiskReport(target: nil, isReadOnly: true, isCDROM: true)
        #expect(facts(try report("backend/vbd/7/5632", .disk(empty))) == ["image: (empty drive)", "mode: read-only"])
    }

    @Test func aCardIsDataAndWords() throws {
        var card = CardReport(mtu: 9000)
        (card.mac, card.bridge, card.queueCount, card.multicastCount) = ("00:16:3e:00:00:01", "xenbr0", 2, 3)
        card.transmitted = .init(packets: 1, bytes: 2, dropped: 3)
        card.received = .init(packets: 4, bytes: UInt64.max, dropped: 6)
        let shown = try report("backend/vif/7/0", .card(card))
        let facts = try #require(shown.card)
        #expect(facts.mac == "00:16:3e:00:00:01" && facts.mtu == 9000 && facts.queues == 2 && facts.bridge == "xenbr0")
        #expect([facts.txPackets, facts.txBytes, facts.txDropped] == [1, 2, 3])
        #expect([facts.rxPackets, facts.rxBytes, facts.rxDropped] == [4, Int64.max, 6])
        #expect(
            self.facts(shown) == [
                "mac: 00:16:3e:00:00:01", "bridge: xenbr0", "mtu: 9000", "queues: 2", "multicast: 3 addresses",
            ]
        )
    }

    /// A reason that looks like another port's words stays a reason.
    @Test func aPortIsDataAndWords() throws {
        var controller = ControllerReport()
        (controller.version, controller.portCount) = (2, 4)
        controller.ports = [
            PortReport(1, .device(bus: "1-1.4", description: "1-1.4: ID 0781:5581 Stick, high speed")),
            PortReport(2, .failed("1-1: belongs to somebody: else")), PortReport(4, .waiting(for: "0781:5581")),
        ]
        let shown = try report("backend/vusb/7/0", .controller(controller))
        let facts = try #require(shown.controller)
        #expect(facts.port(1)?.bus == "1-1.4" && facts.port(1)?.state == .device)
        #expect(facts.port(2) == .init(number: 2, state: .failed, text: "1-1: belongs to somebody: else"))
        #expect(facts.port(3) == nil && facts.port(4)?.state == .waiting)
        #expect(
            self.facts(shown) == [
                "version: 2", "ports: 4", "port 1: 1-1.4: ID 0781:5581 Stick, high speed",
                "port 2: failed: 1-1: belongs to somebody: else", "port 4: waiting for 0781:5581",
            ]
        )
    }
}
