// A guest with a USB controller, and a bus with a stick, a keyboard and a microphone on it.

import FrontendDrivers
import HostIO
import SharedRing
import SimulatedHost
import SimulatedHypervisor
import SystemPackage
import XenWire

#if canImport(Glibc)
    import Glibc
#endif

/// What the USB part of the demo starts beside the stage.
final class DemoUSBStage: Stage {
    static let domain = DomainID(4)!
    /// The bus, in the demo's directory.
    static let folder = "usb"
    /// Blocks of 4 KiB on the stick.
    static let blocks = 1024
    /// Where the devices are to be: one by its place, one by what it is, one by what it can do.
    static let assignments = ["1-1", "046d:c31c", "class=01"]

    let frontend: USBFrontend
    let stick: FilePath
    private let loop: EventLoop
    private let toolstack: SimulatedToolstack
    private let controller: SimulatedToolstack.USBController
    private let keys: FileDescriptor

    init(on stage: DemoStage) throws {
        toolstack = stage.toolstack
        let folder = stage.directory.appending(Self.folder)
        try Files.makeDirectory(folder, permissions: .ownerReadWriteExecute)
        stick = stage.directory.appending("stick.img")
        try Self.fill(stick)
        let fifo = stage.directory.appending("keys")
        // SAFETY: the text lives for the call.
        guard unsafe fifo.withPlatformString({ unsafe mkfifo($0, 0o600) }) == 0 else {
            throw DemoFailure("no FIFO at \(fifo): errno \(errno)")
        }
        keys = try FileDescriptor.open(fifo, .readWrite, options: [.nonBlocking, .closeOnExec])
        try DemoPlug.disk(stick).plug(at: "1-1", in: folder)
        try DemoPlug.keyboard(fifo).plug(at: "1-2.1", in: folder)
        try DemoPlug.microphone.plug(at: "1-2.4", in: folder)
        try stage.machine.createDomain(Self.domain)
        loop = try EventLoop(name: "guest \(Self.domain)")
        var controller = SimulatedToolstack.USBController(DevicePath(kind: .vusb, domain: Self.domain, index: 0))
        for (index, assignment) in Self.assignments.enumerated() {
            if let port = USBPort(index + 1) { controller.ports[port] = assignment }
        }
        self.controller = controller
        frontend = USBFrontend(try stage.machine.hypervisor(for: Self.domain), loop: loop, index: 0)
    }

    private static func fill(_ path: FilePath) throws {
        let file = try FileDescriptor.open(
            path,
            .readWrite,
            options: [.create, .exclusiveCreate],
            permissions: .ownerReadWrite
        )
        try file.closeAfter {
            try file.resize(to: Int64(blocks * DemoContent.blockSize))
            let pages = try PrivatePages(byteCount: blocks * DemoContent.blockSize, file: file)
            for block in 0..<blocks {
                DemoContent.fill(pages, at: block * DemoContent.blockSize, block: block, version: 1)
            }
        }
    }

    /// What `xl create` with a controller and the guest's boot do.
    func attach() async throws {
        try await toolstack.attach(controller)
        try await frontend.connect()
    }

    /// The guest's device in a port, from 1.
    func device(in port: Int) async throws -> USBGuestDevice {
        guard let port = USBPort(port) else { throw DemoFailure("there is no port \(port)") }
        return try await frontend.enumerate(port, within: .seconds(20))
    }

    /// Somebody types at the keyboard. Usages of the keyboard page: 0x04 is A.
    func type(_ usages: [UInt8]) throws { _ = try keys.writeAll(usages) }

    /// What `xl usbctrl-detach` does.
    func detach() async throws { try await toolstack.detach(controller) }

    func strike() async {
        await frontend.abandon()
        loop.shutDown()
        try? keys.close()
    }
}
