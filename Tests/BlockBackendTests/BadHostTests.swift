// The host's storage fails under us: the guest gets an error, the log says why once, nothing else happens.

internal import BackendCore
internal import BlockBackend
internal import Foundation
internal import Glibc
internal import HostIO
internal import SimulatedHypervisor
internal import SystemPackage
internal import TestSupport
internal import Testing
internal import XenWire

extension SimulatedDiskTests {
    @Suite
    struct BadHostTests {
        @Test func theImageIsTruncatedUnderUs() async throws {
            let scene = try await Scene(sectors: 2048)
            let file = try FileDescriptor.open(scene.image, .readWrite)
            try file.resize(to: 1024 * 512)
            for _ in 0..<5 {
                let page = scene.frontend.segments(page: 0, bytes: 4096)
                #expect(try await scene.frontend.ask(.read, sector: 1100, segments: page) == .error)
            }
            // A request of which half is there is an error as well.
            let page = scene.frontend.segments(page: 0, bytes: 4096)
            #expect(try await scene.frontend.ask(.read, sector: 1020, segments: page) == .error)
            #expect(try await scene.frontend.read(4096, at: 0) != nil)
            #expect(scene.bed.logs.count("truncated") == 1)
            #expect(await scene.counter("host-failures") == 6)
            try file.close()
            try await scene.end()
        }

        @Test func theDeviceReportsErrors() async throws {
            // A memfd whose content is sealed after opening: each write fails, as on a broken disk.
            let memory = try #require(makeMemoryFile(byteCount: 1 << 20))
            defer { close(memory) }
            let scene = try await Scene(sectors: 2048, image: FilePath("/proc/self/fd/\(memory)"))
            #expect(try await scene.frontend.write([UInt8](repeating: 1, count: 512), at: 0) == .okay)
            try #require(fcntl(memory, 1033, 0x0008) == 0)  // F_ADD_SEALS, F_SEAL_WRITE
            for _ in 0..<5 {
                #expect(try await scene.frontend.write([UInt8](repeating: 2, count: 512), at: 0) == .error)
            }
            #expect(try await scene.frontend.read(512, at: 0, page: 4) == [UInt8](repeating: 1, count: 512))
            #expect(
                scene.bed.logs.count("/proc/self/fd/\(memory): write at byte 0 failed") == 1,
                "\(scene.bed.logs.all)"
            )
            try await scene.end(victimServes: false)
        }

        @Test(.enabled(if: getuid() == 0))
        func theDiskIsFull() async throws {
            let folder = FilePath("/tmp/xenback-full-\(UUID().uuidString)")
            try Files.makeDirectory(folder, permissions: [.ownerReadWriteExecute])
            defer {
                _ = unsafe umount2(folder.string, CInt(MNT_DETACH))
                _ = unsafe rmdir(folder.string)
            }
            guard unsafe mount("none", folder.string, "tmpfs", 0, "size=256k") == 0 else { return }
            let image = folder.appending("full.img")
            let file = try FileDescriptor.open(image, .readWrite, options: .create, permissions: .ownerReadWrite)
            try file.resize(to: 1 << 20)
            try file.close()
            let scene = try await Scene(sectors: 2048, image: image)
            var statuses: [BlockStatus?] = []
            for index in 0..<20 {
                let data = [UInt8](repeating: 7, count: 40960)
                statuses.append(try await scene.frontend.write(data, at: UInt64(index * 80)))
            }
            #expect(statuses.first == .okay && statuses.last == .error)
            #expect(scene.bed.logs.count("\(image): write at byte") == 1, "\(scene.bed.logs.all)")
            #expect(scene.bed.logs.count("its file system is full") == 1)
            try await scene.end(victimServes: false)
        }

        /// ext4 on a loop device, shut down in the middle: the kernel answers each read, write and flush with EIO, as after
        /// the loss of its disk.
        @Test(.enabled(if: getuid() == 0))
        func theFileSystemFails() async throws {
            let base = "/tmp/xenback-failing-\(UUID().uuidString)"
            let make = "truncate -s 16M \(base).img && mkfs.ext4 -q -F \(base).img && mkdir \(base)"
            defer { _ = unsafe system("umount -l \(base); rmdir \(base); rm -f \(base).img") }
            let isMounted = unsafe system("\(make) && mount -o loop \(base).img \(base) 2>/dev/null") == 0
            guard isMounted else { return print("not run: no ext4 on a loop device") }
            let image = FilePath("\(base)/disk.img")
            #expect(unsafe system("dd if=/dev/zero of=\(image) bs=1M count=1 status=none && sync") == 0)
            let scene = try await Scene(sectors: 2048, image: image)
            let data = [UInt8](repeating: 1, count: 4096)
            #expect(try await scene.frontend.write(data, at: 0) == .okay)
            let root = try FileDescriptor.open(FilePath(base), .readOnly)
            // EXT4_IOC_SHUTDOWN: _IOR('X', 125, __u32); 2: the log is not written out.
            var how: UInt32 = 2
            try root.closeAfter { #expect(unsafe ioctl(root.rawValue, 0x8004_587D, &how) == 0) }
            for index in 0..<5 {
                let page = scene.frontend.segments(page: 0, bytes: 4096)
                #expect(try await scene.frontend.ask(.read, sector: UInt64(index * 8), segments: page) == .error)
                #expect(try await scene.frontend.write(data, at: UInt64(index * 8)) == .error)
            }
            #expect(await scene.counter("host-failures") == 10)
            let line = "\(image): read at byte 0: the host's storage reports an I/O error"
            #expect(scene.bed.logs.count(line) == 1, "\(scene.bed.logs.all)")
            #expect(scene.bed.logs.count("I/O error") == 1)
            try await scene.end(victimServes: false)
        }

        @Test func theHypervisorRefusesToCopy() async throws {
            let scene = try await Scene()
            let page = scene.frontend.segments(page: 0, bytes: 4096)
            try scene.bed.host.inject(FaultPlan([.init(.copy, count: 3, .fail(.noMemory))]))
            #expect(try await scene.frontend.ask(.write, segments: page) == .error)
            #expect(try await scene.frontend.ask(.read, segments: page) == .error)
            try scene.bed.host.clearFaults()
            try await scene.end()
        }

        @Test func aMissingImageIsReportedAndTheOthersGoOn() async throws {
            let scene = try await Scene(image: FilePath("/nowhere/at/all.img"), connects: false)
            #expect(try await eventually { try await scene.bed.read(Scene.victimPath.errorNode) != nil })
            #expect(try await scene.bed.read(Scene.victimPath.errorNode)?.contains("/nowhere/at/all.img") ?? false)
            try await scene.end(victimServes: false)
        }

        private func makeMemoryFile(byteCount: Int) -> CInt? {
            typealias Create = @convention(c) (UnsafePointer<CChar>, CUnsignedInt) -> CInt
            // The Glibc module does not declare it.
            guard let symbol = unsafe dlsym(nil, "memfd_create") else { return nil }
            let descriptor = unsafe unsafeBitCast(symbol, to: Create.self)("image", 2)  // MFD_ALLOW_SEALING
            guard descriptor >= 0, ftruncate(descriptor, byteCount) == 0 else { return nil }
            return descriptor
        }
    }
}
