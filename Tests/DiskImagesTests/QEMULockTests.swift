// QEMU beside us on one image: its locks, played with the calls that block/file-posix.c makes.

import CLinux
import Glibc
import HostIO
import Testing

@testable import DiskImages

/// An image opened as QEMU opens it: `raw_apply_lock_bytes`, then `raw_check_lock_bytes`.
private final class QEMUImage {
    let file: OpenFile
    /// What a guest's disk wants: BLK_PERM_CONSISTENT_READ, BLK_PERM_WRITE; and what others may not: WRITE, RESIZE.
    static let disk = (used: [0, 1], refused: [1, 3])
    /// qemu-img convert, of its source.
    static let copy = (used: [0], refused: [1, 3])

    /// nil: refused, as by "Failed to get lock".
    init?(_ path: String, _ wanted: (used: [Int], refused: [Int]), isInherited: Bool = false) throws {
        file = try OpenFile(path: path, flags: O_RDWR)
        for byte in wanted.used.map({ 100 + $0 }) + wanted.refused.map({ 200 + $0 }) {
            if linux_lock_range(file.descriptor, 0, Int64(byte), 1) != 0 { return nil }
        }
        for byte in wanted.refused.map({ 100 + $0 }) + wanted.used.map({ 200 + $0 }) {
            if linux_is_locked_by_others(file.descriptor, Int64(byte), 1) != 0 { return nil }
        }
        if isInherited { _ = fcntl(file.descriptor, F_SETFD, 0) }
    }
}

/// A process with QEMU's command line that holds an image's locks until it is released.
private final class DeviceModel {
    private let input: CInt

    init(_ path: String, domain: Int) throws {
        var ends: [CInt] = [0, 0]
        try #require(unsafe pipe(&ends) == 0)
        _ = fcntl(ends[1], F_SETFD, FD_CLOEXEC)
        let image = try #require(try QEMUImage(path, QEMUImage.disk, isInherited: true))
        // The lock belongs to the open file, and so to the child as soon as we have closed it.
        let command = "sh -c 'read line' qemu-system-i386 -xen-domid \(domain) <&\(ends[0]) &"
        try #require(unsafe system(command) == 0)
        _ = fcntl(image.file.descriptor, F_SETFD, FD_CLOEXEC)
        close(ends[0])
        input = ends[1]
    }

    deinit { close(input) }
}

@Suite(.serialized) struct QEMULockTests {
    let scratch = Scratch()

    private func options(_ access: ImageOptions.Access, domain: UInt16 = 7, keepsQEMUOut: Bool = false) -> ImageOptions
    {
        ImageOptions(
            access: access,
            owner: "vbd/\(domain)/51712",
            guest: "guest-\(domain)",
            domain: domain,
            keepsQEMUOut: keepsQEMUOut
        )
    }

    @Test func aForeignQEMUIsRefusedByName() throws {
        let path = try scratch.image(byteCount: 1 << 20)
        let writer = try #require(try QEMUImage(path, QEMUImage.disk))
        for access in [ImageOptions.Access.readOnly, .exclusive] {
            let failure = failure(path, options(access))
            #expect(failure?.isLocked == true && failure?.holder?.process == getpid(), "\(access)")
        }
        #expect(failure(path, options(.shared)) == nil)
        withExtendedLifetime(writer) {}
    }

    @Test func aCopyThatWantsNoWriters() throws {
        let path = try scratch.image(byteCount: 1 << 20)
        do {
            let copy = try #require(try QEMUImage(path, QEMUImage.copy))
            #expect(failure(path, options(.exclusive))?.isLocked == true)
            #expect(failure(path, options(.readOnly)) == nil)
            withExtendedLifetime(copy) {}
        }
        // One that minds no writers.
        let tolerant = try #require(try QEMUImage(path, (used: [0], refused: [])))
        #expect(failure(path, options(.exclusive)) == nil)
        withExtendedLifetime(tolerant) {}
    }

    /// libxl starts it with the disks, for firmware and boot loader, and a worker that died finds it there.
    @Test func theGuestsOwnDeviceModelIsLetIn() async throws {
        let path = try scratch.image(byteCount: 1 << 20)
        let model = try DeviceModel(path, domain: 7)
        // Until the shell has become the device model, nobody knows whose lock it is.
        let identity = try DiskIdentity(path)
        #expect(try await becomesTrue { LockHolder.all(of: identity.value).contains { $0.holder.domain == 7 } })
        #expect(failure(path, options(.exclusive)) == nil)
        #expect(failure(path, options(.readOnly)) == nil)
        let foreign = failure(path, options(.exclusive, domain: 8))
        #expect(foreign?.holder?.domain == 7, "\(String(describing: foreign))")
        withExtendedLifetime(model) {}
    }

    @Test(arguments: [ImageOptions.Access.readOnly, .exclusive, .shared])
    func theDeviceModelComesAfterUs(_ access: ImageOptions.Access) throws {
        let path = try scratch.image(byteCount: 1 << 20)
        let image = try RawImage.open(path, options(access))
        #expect(try QEMUImage(path, QEMUImage.disk) != nil)
        withExtendedLifetime(image) {}
    }

    /// Where no device model will come, QEMU's programs refuse the image by themselves.
    @Test func qemuIsKeptOut() throws {
        let path = try scratch.image(byteCount: 1 << 20)
        do {
            let image = try RawImage.open(path, options(.exclusive, keepsQEMUOut: true))
            #expect(try QEMUImage(path, QEMUImage.disk) == nil)
            #expect(try QEMUImage(path, QEMUImage.copy) == nil)
            withExtendedLifetime(image) {}
        }
        do {
            let image = try RawImage.open(path, options(.readOnly, keepsQEMUOut: true))
            #expect(try QEMUImage(path, QEMUImage.disk) == nil)
            #expect(try QEMUImage(path, QEMUImage.copy) != nil)
            withExtendedLifetime(image) {}
        }
        let image = try RawImage.open(path, options(.shared, keepsQEMUOut: true))
        #expect(try QEMUImage(path, QEMUImage.disk) != nil)
        withExtendedLifetime(image) {}
    }

    /// Two of ours that both speak QEMU's language: a guest beside itself, readers beside readers.
    @Test func ourOwnAreNotTakenForQEMU() throws {
        let path = try scratch.image(byteCount: 1 << 20)
        var second = options(.exclusive, keepsQEMUOut: true)
        second.owner = "vbd/9/51712"
        do {
            let image = try RawImage.open(path, options(.exclusive, keepsQEMUOut: true))
            #expect(failure(path, second) == nil)
            withExtendedLifetime(image) {}
        }
        let image = try RawImage.open(path, options(.readOnly, keepsQEMUOut: true))
        #expect(failure(path, options(.readOnly, domain: 8, keepsQEMUOut: true)) == nil)
        withExtendedLifetime(image) {}
    }

    @Test func fdinfo() {
        #expect(LockHolder.range("lock:\t1: OFDLCK ADVISORY  READ -1 fe:00:4711 100 101") == 100...101)
        #expect(LockHolder.range("lock:\t1: POSIX  ADVISORY  WRITE 99 fe:00:4711 0 EOF") == 0...Int64.max)
        #expect(LockHolder.range("lock:\t1: FLOCK  ADVISORY  WRITE 99 fe:00:4711 0 EOF") == nil)
        #expect(LockHolder.range("lock:") == nil)
    }

    private func becomesTrue(_ condition: () -> Bool) async throws -> Bool {
        let end = ContinuousClock.now + .seconds(30)
        while ContinuousClock.now < end {
            if condition() { return true }
            try await Task.sleep(for: .milliseconds(5))
        }
        return condition()
    }
}

private struct DiskIdentity {
    let value: FileIdentity

    init(_ path: String) throws {
        var status = stat()
        try #require(unsafe stat(path, &status) == 0)
        value = FileIdentity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
    }
}
