// The services in a driver domain: XenStore shows them their own half only, and every verb has its answer all the same.

import ControlProtocol
import FrontendDrivers
import HostIO
import HostNetwork
import Hypervisor
import SimulatedHost
import SimulatedHypervisor
import SystemPackage
import Testing
import XenWire

@testable import BackendServer

/// Domain 2 serves a disk, a CD-ROM drive, a card and a USB controller to domain 7; libxl in dom0 attached them.
private final class DriverDomain {
    let services: Services
    let guest: DomainID
    let exchange: PacketExchange
    /// The verbs that were called.
    var walked: Set<String> = []

    init() throws {
        let own = try #require(DomainID(2))
        guest = try #require(DomainID(7))
        services = try Services(own: own, hasNetwork: true)
        exchange = try PacketExchange(directory: services.network)
        try exchange.add("vif7.0")
        try services.host.machine.createDomain(guest)
        try Files.makeDirectory(services.bus, permissions: .ownerReadWriteExecute)
        let stick = try FileDescriptor.open(
            services.bus.appending("1-1"),
            .writeOnly,
            options: [.create],
            permissions: .ownerReadWrite
        )
        let image = try services.makeImage("stick.img", megabytes: 1)
        try stick.closeAfter { _ = try stick.writeAll("disk \(image)".utf8) }
    }

    private func path(_ kind: DeviceKind, _ index: UInt32) -> DevicePath {
        DevicePath(kind: kind, domain: guest, index: index)
    }

    /// - Returns: the guest's drivers of the disk and of the controller, connected.
    func attachAll() async throws -> (BlockFrontend, USBFrontend) {
        let toolstack = SimulatedToolstack(services.host.dom0)
        let own = try #require(DomainID(2))
        let image = try services.makeImage("disk.img", megabytes: 16)
        var disk = SimulatedToolstack.Disk(path(.vbd3, 51712), params: "aio:\(image)")
        disk.backendDomain = own
        var drive = SimulatedToolstack.Disk(path(.vbd3, 5632), params: "aio:\(image)")
        (drive.backendDomain, drive.device, drive.isCDROM) = (own, "hdc", true)
        drive.params = "aio:\(try services.makeImage("cd.img", megabytes: 1))"
        var card = SimulatedToolstack.NetworkCard(path(.vif, 0))
        card.backendDomain = own
        var controller = SimulatedToolstack.USBController(path(.vusb, 0))
        (controller.backendDomain, controller.portCount) = (own, 2)
        try await toolstack.attach(disk)
        try await toolstack.attach(drive)
        try await toolstack.attach(card)
        try await toolstack.attach(controller)
        let frontend = BlockFrontend(
            try services.host.machine.hypervisor(for: guest),
            loop: services.host.loop,
            index: 51712
        )
        try await frontend.connect()
        let ports = USBFrontend(
            try services.host.machine.hypervisor(for: guest),
            loop: services.host.loop,
            index: 0
        )
        try await ports.connect(within: .seconds(30))
        return (frontend, ports)
    }

    func call<Verb: ControlVerb>(_ verb: Verb) async throws -> Verb.Reply {
        walked.insert(Verb.method)
        return try await services.call(verb)
    }

    /// What the verb is refused with.
    func refusal<Verb: ControlVerb>(_ verb: Verb) async throws -> String {
        do {
            _ = try await call(verb)
        } catch let error as ControlError {
            return error.description
        }
        return "not refused"
    }

    /// All methods that the interface describes.
    static var methods: Set<String> {
        Set(
            ControlInterface.description.split(separator: "\n").compactMap { line in
                line.hasPrefix("method ")
                    ? "\(ControlInterface.name)." + line.dropFirst(7).prefix { $0 != "(" && $0 != " " } : nil
            }
        )
    }
}

extension ServiceTests {
    /// `/local/domain/7` is not readable for domain 2, nor is the list of domains.
    @Test func everyVerbHasItsAnswerInADriverDomain() async throws {
        let scene = try DriverDomain()
        let (frontend, ports) = try await scene.attachAll()
        _ = try await scene.call(Ping())
        #expect(try await scene.call(GetVersion()).process > 0)
        let devices = try await scene.call(List()).devices
        #expect(devices.map { "\($0.kind)/\($0.index)" }.sorted() == ["vbd3/51712", "vbd3/5632", "vif/0", "vusb/0"])
        #expect(devices.first { $0.node == "xvda" }?.frontendState == "connected")
        #expect(try await scene.call(Show(domain: "7", device: "xvda")).reports.count == 1)
        #expect(try await scene.call(Show(domain: "7")).reports.count == 4)
        #expect(try await scene.call(BlockList(domain: "7")).disks.map(\.device.node) == ["hdc", "xvda"])
        #expect(try await scene.call(NetworkList(domain: "7")).cards.map(\.mac) == ["00:16:3e:00:00:01"])
        #expect(try await scene.call(BlockResize(domain: "7", device: "xvda")).sectors == 32768)
        _ = try await scene.call(Hotplug(path: "backend/vbd3/7/51712", event: .add))
        _ = try await scene.call(MediaEject(domain: "7", device: "hdc"))
        let image = try scene.services.makeImage("other.img", megabytes: 1)
        _ = try await scene.call(MediaInsert(domain: "7", device: "hdc", target: "\(image)"))
        #expect(try await scene.call(USBListAssignable()).devices.map(\.bus) == ["1-1"])
        let port = try await scene.call(USBAttach(domain: "7", device: "0", port: 1, bus: "1-1")).port
        #expect(port.device?.bus == "1-1")
        let listed = try await scene.call(USBList(domain: "7")).controllers.first?.ports ?? []
        #expect(listed.map { $0.device?.bus } == ["1-1", nil])
        _ = try await scene.call(USBDetach(domain: "7", device: "0", port: 1))
        // What is dom0's to do is refused before anything is touched.
        for refusal in [
            try await scene.refusal(BlockAttach(domain: "7", disk: "vdev=xvdb,target=\(image)")),
            try await scene.refusal(BlockDetach(domain: "7", device: "xvda")),
            try await scene.refusal(USBControllerCreate(domain: "7", controller: "usbver=2")),
            try await scene.refusal(USBControllerDestroy(domain: "7", device: "0")),
            try await scene.refusal(Network2Attach(domain: "7", card: "")),
            try await scene.refusal(Network2Detach(domain: "7", device: "0")),
        ] { #expect(refusal.hasPrefix("domain 2 is a driver domain"), "\(refusal)") }
        // The demo's broker has no cards to give; that it has none is its answer here as elsewhere.
        for refusal in [
            try await scene.refusal(PCIListAssignable()), try await scene.refusal(PCIAssignableAdd(card: "08:05.0")),
            try await scene.refusal(PCIAssignableRemove(card: "08:05.0")),
            try await scene.refusal(PCIReset(card: "08:05.0")),
            try await scene.refusal(PCICheck(card: "08:05.0")), try await scene.refusal(PCIList(domain: "7")),
            try await scene.refusal(PCIPrepare(domain: "7", line: "08:05.0")),
            try await scene.refusal(PCIVirtualFunctions(card: "08:05.0")),
            try await scene.refusal(PCIVirtualFunctionSet(card: "08:05.0", index: 0)),
        ] { #expect(refusal.contains("PCI cards are not given away here"), "\(refusal)") }
        #expect(scene.walked == DriverDomain.methods)
        // The disk is as it was.
        #expect(try await scene.call(List()).devices.first { $0.node == "xvda" }?.backendState == "connected")
        // Names of domains are not to be had, and a domain without devices has none.
        #expect(try await scene.refusal(Show(domain: "domain-7")).contains("say the number of 'domain-7'"))
        #expect(try await scene.call(BlockList(domain: "9")).disks.isEmpty)
        #expect(try await scene.refusal(BlockResize(domain: "9", device: "xvda")).contains("no device of ours"))
        await frontend.abandon()
        await ports.abandon()
        scene.exchange.shutDown()
        await scene.services.end()
    }
}
