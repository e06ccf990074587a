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
}
