// Keeps the host's drivers away from interfaces that a guest's configuration makes.

internal import CLinux
internal import Glibc
internal import HostIO
internal import SystemPackage

/// A hold on `interface_authorized_default` of one host controller (Linux, Documentation/usb/authorization.rst).
///
/// When a configuration is set the kernel creates its interfaces and offers each to all drivers before it returns
/// (drivers/usb/core/message.c, `usb_set_configuration`): usbhid or usb-storage would probe a device that a guest may
/// have manipulated. Interfaces that are created while the default is 0 are offered to no driver. It is the narrowest
/// control there is: the others affect all buses, or interfaces that exist already.
///
/// Other devices of the controller must not miss their drivers: interfaces that became unauthorized by accident
/// meanwhile are authorized and offered afterwards. The hold is a lock file per bus (`<run>/usb/bus-3`), which says,
/// while the default is changed, what is to be restored. A holder that dies leaves it written and unlocked, and the
/// next to come restores it: the next holder, a successor that opens the device, or the broker.
struct ProbeGuard: Sendable {
    let tree: DeviceTree
    /// Where a name is written to be offered to drivers: /sys/bus/usb/drivers_probe.
    let probe: FilePath
    let locks: FilePath
    /// How long a device that has arrived meanwhile may take to get all its interfaces.
    private static let settleTime = Duration.seconds(2)

    /// Runs `body`, which may create interfaces of `facts`' device, without offering them to drivers.
    ///
    /// Where that is the host's policy anyway (the default is 0) or the kernel cannot do it (before Linux 4.4), it just
    /// runs.
    func withoutDrivers<Result>(_ facts: USBDeviceFacts, _ body: () -> Result) -> Result {
        guard let file = lock(bus: facts.busNumber) else { return body() }
        restore(file, bus: facts.busNumber)
        guard tree.authorizesInterfaces(ofBus: facts.busNumber) else { return body() }
        let hold = Hold(device: "\(facts.address)", unauthorized: tree.unauthorizedInterfaces(ofBus: facts.busNumber))
        let before = Set(tree.unsettledDevices(ofBus: facts.busNumber))
        // Written before the default is changed, and emptied after it is back.
        ProbeGuard.write(hold.text, to: file)
        tree.authorizeInterfaces(ofBus: facts.busNumber, false)
        let result = body()
        tree.authorizeInterfaces(ofBus: facts.busNumber, true)
        waitForArrivals(facts, but: before)
        offerOthers(bus: facts.busNumber, hold)
        ProbeGuard.write("", to: file)
        return result
    }

    /// Restores what a dead holder has changed. Does nothing while a holder is alive: it will do so itself.
    func restore(bus: UInt8) {
        guard let file = try? OpenFile(path: path(bus: bus), flags: O_RDWR),
            linux_lock_open_file(file.descriptor, 1) == 0
        else { return }
        restore(file, bus: bus)
    }

    /// The buses that have been held since the host was started.
    var buses: [UInt8] {
        let names = (try? Files.names(in: locks)) ?? []
        return names.compactMap { $0.hasPrefix("bus-") ? UInt8($0.dropFirst(4)) : nil }.sorted()
    }

    private func restore(_ file: OpenFile, bus: UInt8) {
        let bytes = (try? Files.contents(of: FileDescriptor(rawValue: file.descriptor), limit: 1 << 16)) ?? []
        guard let hold = Hold(String(decoding: bytes, as: UTF8.self)) else { return }
        tree.authorizeInterfaces(ofBus: bus, true)
        offerOthers(bus: bus, hold)
        ProbeGuard.write("", to: file)
    }

    /// Authorizes the interfaces that were caught in the hold by accident, and offers them to drivers.
    private func offerOthers(bus: UInt8, _ hold: Hold) {
        for name in tree.unauthorizedInterfaces(ofBus: bus) where !hold.unauthorized.contains(name) {
            // Its own interfaces are for its owner, or that one's successor.
            if name.hasPrefix("\(hold.device):") { continue }
            offer(name)
        }
    }

    /// Authorizes an interface and offers it to all drivers (authorization alone does not).
    func offer(_ interface: String) {
        tree.authorize(interface: interface)
        Sysfs.append(interface, to: probe)
    }

    /// A device that arrived while the default was 0 may get its interfaces a moment later.
    private func waitForArrivals(_ facts: USBDeviceFacts, but before: Set<String>) {
        let end = ContinuousClock.now + ProbeGuard.settleTime
        func arriving() -> [String] {
            tree.unsettledDevices(ofBus: facts.busNumber).filter { $0 != "\(facts.address)" && !before.contains($0) }
        }
        while ContinuousClock.now < end, !arriving().isEmpty { usleep(20_000) }
    }

    // MARK: the file

    private func path(bus: UInt8) -> String { locks.appending("bus-\(bus)").string }

    /// Waits for the lock: its holder is in a call that ends, or dies.
    private func lock(bus: UInt8) -> OpenFile? {
        do throws(Errno) {
            try Files.makeDirectory(locks, permissions: [.ownerReadWriteExecute])
            let file = try OpenFile(path: path(bus: bus), flags: O_RDWR | O_CREAT)
            while true {
                switch linux_lock_open_file(file.descriptor, 1) {
                case 0: return file
                case EAGAIN, EACCES: usleep(10_000)
                default: return nil
                }
            }
        } catch { return nil }
    }

    private static func write(_ text: String, to file: OpenFile) {
        let bytes = Array(text.utf8)
        _ = ftruncate(file.descriptor, 0)
        // SAFETY: the kernel reads the bytes during the call only.
        _ = unsafe bytes.withUnsafeBytes { unsafe pwrite(file.descriptor, $0.baseAddress, $0.count, 0) }
    }
}

/// What a lock file says while the default is changed.
private struct Hold {
    /// The device whose configuration is set.
    var device: String
    /// Interfaces that were unauthorized before, by the administrator's decision.
    var unauthorized: Set<String>

    init(device: String, unauthorized: [String]) {
        self.device = device
        self.unauthorized = Set(unauthorized)
    }

    /// Nil for an empty file, and for one that is incomplete: then nothing was changed yet.
    init?(_ text: String) {
        let words = text.split(separator: " ", omittingEmptySubsequences: false)
        guard words.count >= 2, words.last == "\n" else { return nil }
        device = String(words[0])
        unauthorized = Set(words.dropFirst().dropLast().map(String.init))
    }

    var text: String { ([device] + unauthorized.sorted() + ["\n"]).joined(separator: " ") }
}

/// Attributes that are written.
enum Sysfs {
    /// - Returns: whether the kernel took it.
    @discardableResult
    static func write(_ text: String, to path: FilePath) -> Bool { write(text, to: path, flags: O_WRONLY) }

    /// For attributes that take one name after the other.
    @discardableResult
    static func append(_ text: String, to path: FilePath) -> Bool {
        write(text + "\n", to: path, flags: O_WRONLY | O_APPEND)
    }

    private static func write(_ text: String, to path: FilePath, flags: CInt) -> Bool {
        guard let file = try? OpenFile(path: path.string, flags: flags) else { return false }
        let bytes = Array(text.utf8)
        // SAFETY: the kernel reads the bytes during the call only.
        return unsafe bytes.withUnsafeBytes { unsafe Glibc.write(file.descriptor, $0.baseAddress, $0.count) }
            == bytes.count
    }
}
