// Discs, ejection and growth of live disks, asked for on the control socket and seen by the guest's driver.

import ControlProtocol
import FrontendDrivers
import SharedRing
import SimulatedHypervisor
import SystemPackage
import Testing
import XenWire

@testable import BackendServer

extension ServiceTests {
    /// Writes `text` at the beginning of an image.
    private func label(_ image: FilePath, _ text: String) throws {
        let file = try FileDescriptor.open(image, .readWrite)
        try file.closeAfter { _ = try file.writeAll(text.utf8) }
    }

    /// What the guest reads there; nil where its read fails.
    private func label(_ drive: BlockFrontend, _ count: Int) async -> String? {
        guard let pages = try? PrivatePages(byteCount: 4096),
            (try? await drive.read(sector: 0, count: 8, into: pages)) != nil
        else { return nil }
        let slot = pages.slot(at: 0, byteCount: count)
        return String(decoding: (0..<count).map { slot.u8($0) }, as: UTF8.self)
    }

    @Test func discsAreChangedOverTheControlSocket() async throws {
        let services = try Services()
        let domain = DomainID(1)!
        try services.host.machine.createDomain(domain)
        let (first, second) = (
            try services.makeImage("1.iso", megabytes: 1), try services.makeImage("2.iso", megabytes: 2)
        )
        try label(first, "first")
        try label(second, "other")
        let drive = try await services.attach(
            domain,
            51728,
            "vdev=xvdb,devtype=cdrom,access=ro,format=raw,target=\(first)"
        )
        #expect(await label(drive, 5) == "first")
        _ = try await services.call(MediaEject(domain: "1", device: "xvdb"))
        try await eventually("an empty drive") { await drive.connection?.sectors == 0 }
        #expect(await label(drive, 5) == nil)
        let missing = await #expect(throws: ControlError.self) {
            try await services.call(MediaInsert(domain: "1", device: "xvdb", target: "/none.iso"))
        }
        #expect(missing?.description.contains("/none.iso") ?? false)
        _ = try await services.call(MediaInsert(domain: "1", device: "51728", target: second.string))
        try await eventually("the other disc") { await drive.connection?.sectors == 4096 }
        #expect(await label(drive, 5) == "other")
        let disks = try await services.call(BlockList(domain: "1")).disks
        #expect(disks.map(\.target) == [second.string])
        #expect(disks.map(\.cdrom) == [true])
        await services.end()
    }

    @Test func aResizeOverTheControlSocketReachesTheGuest() async throws {
        let services = try Services()
        let guest = try await services.guest(1, megabytes: 4)
        let file = try FileDescriptor.open(services.host.directory.appending("disk-1.img"), .readWrite)
        try file.closeAfter { try file.resize(to: 8 << 20) }
        #expect(try await services.call(BlockResize(domain: "1", device: "xvda")).sectors == 16384)
        try await eventually("the new size") { await guest.frontend.connection?.sectors == 16384 }
        let pages = try PrivatePages(byteCount: 4096)
        try await guest.frontend.write(sector: 16376, count: 8, from: pages)
        let notADrive = await #expect(throws: ControlError.self) {
            try await services.call(MediaEject(domain: "1", device: "xvda"))
        }
        #expect(notADrive?.description.contains("not a CD-ROM drive") ?? false)
        await services.end()
    }
}
