// Who gets an image beside whom, as XenStore and the locks tell it; and what is written there for others.

internal import BackendCore
internal import BlockBackend
internal import Glibc
internal import Hypervisor
internal import SimulatedHypervisor
internal import SystemPackage
internal import TestSupport
internal import Testing
internal import XenWire

extension SimulatedDiskTests {
    @Suite
    struct ImageSharingTests {
        static let other = DomainID(8)!
        let first = DevicePath(kind: .vbd, domain: guestDomain, index: 51712)
        let second = DevicePath(kind: .vbd, domain: ImageSharingTests.other, index: 51712)
        let script = "/etc/xen/scripts/block-xenback"

        /// What the script of a disk is told; empty if it worked.
        private func add(_ backend: any DeviceBackend) async -> String {
            do { try await backend.hotplug(.add) } catch { return "\(error)" }
            return ""
        }

        /// A bed with another guest.
        private func twoGuests() throws -> GuestBed {
            let bed = try GuestBed()
            try bed.machine.createDomain(ImageSharingTests.other)
            return bed
        }

        /// What a second guest's disk is told, beside the first one's.
        private func refusal(
            _ bed: GuestBed,
            image: FilePath,
            mode: String = "w",
            extra: [String: String] = [:]
        ) async throws -> String {
            try await bed.makeDevice(second, image: image, mode: mode, script: script, extra: extra)
            let (backend, life) = bed.start(second)
            let answer = await add(backend)
            if !answer.isEmpty {
                // Nothing is left that would keep a third one out.
                #expect(try await bed.read(second.key("physical-device-path")) == nil)
            }
            try await bed.host.store.remove(second.relative)
            await life.value
            return answer
        }

        @Test func aSecondGuestIsRefusedByName() async throws {
            let bed = try twoGuests()
            let image = try bed.makeImage(sectors: 64)
            try await bed.makeDevice(first, image: image, script: script)
            let (backend, life) = bed.start(first)
            #expect(await add(backend) == "")
            #expect(try await bed.read(first.key("physical-device-path")) == image.string)
            for mode in ["w", "r"] {
                let answer = try await refusal(bed, image: image, mode: mode)
                #expect(
                    answer.contains("is in use by disk xvda of domain 7 (vbd/7/51712), which writes it"),
                    "\(answer)"
                )
                #expect(answer.contains("target=shared:\(image)"))
            }
            // xm's mode, and the cure that the refusal names, which can be typed in a line of xl.
            #expect(try await refusal(bed, image: image, mode: "w!") == "")
            #expect(try await refusal(bed, image: image, extra: ["params": "shared:\(image)"]) == "")
            // Another name of the file is no other file.
            let link = bed.folder.appending("link.img")
            try #require(unsafe symlink(image.string, link.string) == 0)
            #expect(try await refusal(bed, image: link).contains("domain 7"))
            await backend.drain()
            await life.value
        }

        /// The worker of a guest may be dead for a moment; its disk is its disk.
        @Test func aDiskWhoseWorkerIsDeadIsInUse() async throws {
            let bed = try twoGuests()
            let image = try bed.makeImage(sectors: 64)
            try await bed.makeDevice(first, image: image, script: script)
            let (backend, life) = bed.start(first)
            #expect(await add(backend) == "")
            await backend.drain()
            await life.value
            #expect(try await refusal(bed, image: image).contains("disk xvda of domain 7"))
        }

        /// The kernel's disk of another guest, known by what its script has written.
        @Test func theKernelsDisksAreSeen() async throws {
            let bed = try twoGuests()
            let image = try bed.makeImage(sectors: 64)
            try await bed.makeDevice(first, image: "/dev/whatever", extra: ["physical-device-path": image.string])
            #expect(try await refusal(bed, image: image, mode: "r").contains("domain 7"))
            // A guest that is gone left only its directory: the toolstack's script looks through it, too.
            try bed.machine.destroyDomain(guestDomain)
            try await bed.host.store.remove("/local/domain/7")
            #expect(try await refusal(bed, image: image) == "")
        }

        /// A guest that is migrated to its own host is there twice for a while.
        @Test func aGuestBesideItself() async throws {
            let bed = try twoGuests()
            let image = try bed.makeImage(sectors: 64)
            for domain in [7, 8] { try await bed.write("/local/domain/\(domain)/vm", "/vm/5ca1ab1e") }
            try await bed.makeDevice(first, image: image, script: script)
            let (backend, life) = bed.start(first)
            #expect(await add(backend) == "")
            #expect(try await refusal(bed, image: image) == "")
            try await bed.write("/local/domain/8/vm", "/vm/other")
            #expect(try await refusal(bed, image: image).contains("domain 7"))
            await backend.drain()
            await life.value
        }

        /// libxl gives the path to the device model: of a `vbd3` it would be taken for a tapdisk's socket.
        @Test func whatADeviceModelIsTold() async throws {
            let bed = try GuestBed()
            let image = try bed.makeImage(sectors: 64)
            try await bed.write("/libxl/7/type", "hvm")
            for (kind, path) in [(DeviceKind.vbd, image.string), (.vbd3, nil)] {
                let device = DevicePath(kind: kind, domain: guestDomain, index: 51728)
                try await bed.makeDevice(device, image: image, script: script)
                let (backend, life) = bed.start(device)
                #expect(await add(backend) == "")
                #expect(try await bed.read(device.key("physical-device-path")) == path)
                try await bed.host.store.remove(device.relative)
                await life.value
            }
        }

        @Test func targetsAsTheManualsWriteThem() async throws {
            let bed = try twoGuests()
            let image = try bed.makeImage(sectors: 64)
            for params in ["phy:\(image)", "file:\(image)", "tap2:tapdisk:aio:\(image)"] {
                #expect(try await refusal(bed, image: image, extra: ["params": params]) == "", "\(params)")
            }
            let missing = try await refusal(bed, image: image, extra: ["params": "loop-none"])
            #expect(missing.hasPrefix("/dev/loop-none: there is no such file"), "\(missing)")
            #expect(missing.contains("looked for in /dev"))
            let format = try await refusal(bed, image: image, extra: ["params": "vhd:\(image)"])
            #expect(format.contains("format vhd is not served"), "\(format)")
        }
    }
}
