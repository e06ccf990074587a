// One owner for each device of the host: a lock file with the owner's name in it.

internal import CLinux
internal import Glibc
internal import HostIO
internal import SystemPackage

/// The right to use a device, of one owner in all processes of the service, until it is released or its process dies.
///
/// usbfs lets anybody open a node who may, and tells the second one only when it claims an interface, and not whose it is.
/// The lock is the open file's (fcntl(2), F_OFD_SETLK), so that the kernel drops it with the process. Its file is named
/// after the bus and device number: what is plugged in there next has another one. Files stay; there are few names.
final class DeviceLock: Sendable {
    private let file: OpenFile

    /// - Throws: `.busy` with the holder's name, `.host` if there can be no such file.
    init(_ facts: USBDeviceFacts, owner: String, in directory: FilePath) throws(USBFailure) {
        let path = directory.appending("\(facts.busNumber)-\(facts.deviceNumber)")
        // Not `self.file` yet: whoever does not get the lock must not clear its holder's name in `deinit`.
        let file: OpenFile
        do throws(Errno) {
            try Files.makeDirectory(directory, permissions: [.ownerReadWriteExecute])
            file = try OpenFile(path: path.string, flags: O_RDWR | O_CREAT)
        } catch {
            throw USBFailure(.host, "\(path) cannot be made: \(error)")
        }
        let status = linux_lock_open_file(file.descriptor, 1)
        if status == EAGAIN || status == EACCES {
            let holder = DeviceLock.holder(file)
            throw USBFailure(.busy, "\(facts.address) belongs to \(holder); detach it there first")
        }
        if status != 0 { throw USBFailure(.host, "\(path) cannot be locked: \(Errno(rawValue: status))") }
        self.file = file
        let line = Array("\(USBText.printable(owner)) (pid \(getpid()))\n".utf8)
        _ = ftruncate(file.descriptor, 0)
        // SAFETY: the kernel reads the bytes during the call only.
        _ = unsafe line.withUnsafeBytes { unsafe pwrite(file.descriptor, $0.baseAddress, $0.count, 0) }
    }

    deinit { _ = ftruncate(file.descriptor, 0) }

    private static func holder(_ file: OpenFile) -> String {
        let bytes = (try? Files.contents(of: FileDescriptor(rawValue: file.descriptor), limit: 512)) ?? []
        let line = String(decoding: bytes.prefix { $0 != 0x0a }, as: UTF8.self)
        return line.isEmpty ? "another owner" : USBText.printable(line)
    }
}
