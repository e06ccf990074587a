// One owner per host device: a lock file with the owner's name in it.

internal import CLinux
internal import Glibc
internal import HostIO
internal import Synchronization
internal import SystemPackage

/// The right to use a device, of one owner in all processes of the service, until it is released or its process dies.
///
/// usbfs lets anybody with permission open a node; a second opener learns of the first only when claiming an interface,
/// and not who it is. The lock is the open file's (fcntl(2), F_OFD_SETLK), so that the kernel drops it with the
/// process. Its file is named after bus and device number, so the next device in the same place has another one. Files
/// are kept; there are few names.
///
/// Its two lines say who has the device, and which configuration the host had it in. An owner that returns the device
/// empties the file; one that dies, or leaves the device to a successor, does not.
final class DeviceLock: Sendable {
    private let file: OpenFile
    /// bConfigurationValue of the configuration that the host had the device in.
    let hostConfiguration: UInt8?
    private let isLeft = Atomic(false)

    /// - Throws: `.busy` with the holder's name, `.host` if the file cannot be made.
    init(_ facts: USBDeviceFacts, owner: String, in directory: FilePath) throws(HostFailure) {
        let path = directory.appending("\(facts.busNumber)-\(facts.deviceNumber)")
        // Not `self.file` yet: an owner that does not get the lock must not clear its holder's name in `deinit`.
        let file: OpenFile
        do throws(Errno) {
            try Files.makeDirectory(directory, permissions: [.ownerReadWriteExecute])
            file = try OpenFile(path: path.string, flags: O_RDWR | O_CREAT)
        } catch {
            throw HostFailure(.host, "\(path) cannot be made: \(error)")
        }
        let status = linux_lock_open_file(file.descriptor, 1)
        let former = DeviceLock.lines(file)
        if status == EAGAIN || status == EACCES {
            let holder = former.first.map(USBText.printable) ?? "another owner"
            throw HostFailure(.busy, "\(facts.address) belongs to \(holder); detach it there first")
        }
        if status != 0 { throw HostFailure(.host, "\(path) cannot be locked: \(Errno(rawValue: status))") }
        self.file = file
        // A dead owner's guest may have chosen another configuration.
        let kind = "\(USBText.hexadecimal(facts.vendor)):\(USBText.hexadecimal(facts.product))"
        if let words = former.dropFirst().first?.split(separator: " "), words.count == 2, words[0] == kind {
            hostConfiguration = UInt8(words[1]).flatMap { $0 == 0 ? nil : $0 }
        } else {
            hostConfiguration = facts.activeConfiguration
        }
        let text = "\(USBText.printable(owner)) (pid \(getpid()))\n\(kind) \(hostConfiguration ?? 0)\n"
        let bytes = Array(text.utf8)
        _ = ftruncate(file.descriptor, 0)
        // SAFETY: the kernel reads the bytes during the call only.
        _ = unsafe bytes.withUnsafeBytes { unsafe pwrite(file.descriptor, $0.baseAddress, $0.count, 0) }
    }

    /// The device stays as it is, for a successor.
    func leave() { isLeft.store(true, ordering: .relaxed) }

    deinit { if !isLeft.load(ordering: .relaxed) { _ = ftruncate(file.descriptor, 0) } }

    private static func lines(_ file: OpenFile) -> [String] {
        let bytes = (try? Files.contents(of: FileDescriptor(rawValue: file.descriptor), limit: 512)) ?? []
        return bytes.split(separator: 0x0a).map { String(decoding: $0, as: UTF8.self) }
    }

    // MARK: dead owners

    /// A device whose owner ended without returning it.
    struct Abandoned: Hashable {
        var busNumber: UInt8
        var deviceNumber: UInt8
        /// As the owner called itself.
        var owner: String
    }

    /// Those that have no owner now.
    static func abandoned(in directory: FilePath) -> [Abandoned] {
        ((try? Files.names(in: directory)) ?? []).sorted().compactMap { name in
            let numbers = name.split(separator: "-").map { UInt8($0) }
            guard numbers.count == 2, let bus = numbers[0], let number = numbers[1],
                let file = try? OpenFile(path: directory.appending(name).string, flags: O_RDWR),
                linux_lock_open_file(file.descriptor, 1) == 0, let line = lines(file).first
            else { return nil }
            let owner = line.split(separator: " (pid ").first.map(String.init) ?? line
            return Abandoned(busNumber: bus, deviceNumber: number, owner: owner)
        }
    }

    /// Its device is gone.
    static func forget(_ abandoned: Abandoned, in directory: FilePath) {
        let path = directory.appending("\(abandoned.busNumber)-\(abandoned.deviceNumber)")
        guard let file = try? OpenFile(path: path.string, flags: O_RDWR), linux_lock_open_file(file.descriptor, 1) == 0
        else { return }
        _ = ftruncate(file.descriptor, 0)
    }
}
