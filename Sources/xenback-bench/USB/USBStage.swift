// A controller of ours with one device in its port, and the guest's raw driver.

internal import FrontendDrivers
internal import HostUSB
internal import SimulatedHost
internal import SystemPackage
internal import USBBackend
internal import XenWire

/// Made for one measurement.
final class USBStage: Stage {
    let frontend: RawUSBFrontend
    private let bench: BenchHost

    /// - Parameter directory: where the journal is made.
    init(in directory: FilePath) async throws {
        guard let port = USBPort(1), let address = USBBusAddress("1-1") else { throw BenchFailure("no names") }
        bench = try BenchHost(in: directory)
        let bus = SimulatedUSB()
        try bus.plug(USBSink(), at: address)
        var controller = SimulatedToolstack.USBController(DevicePath(kind: .vusb, domain: bench.domain, index: 0))
        controller.ports[port] = "\(address)"
        try await bench.serve(controller, by: USBClass(host: bus))
        frontend = RawUSBFrontend(bench.guest, index: 0)
    }

    func strike() async { await bench.strike() }
}
