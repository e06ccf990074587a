// The USB of the running kernel: its devices through sysfs, their transfers through usbfs and libusb.

internal import Glibc
public import HostIO
public import SystemPackage

/// The host's own USB.
///
/// Needs sysfs, /dev/bus/usb and the right to write to nodes there, which root has. `Kernel/` has the implementation.
public final class KernelUSB: USBHost {
    /// Where the kernel and the service keep things; tests use another root.
    public struct Places: Sendable {
        public var devices: FilePath = "/sys/bus/usb/devices"
        public var nodes: FilePath = "/dev/bus/usb"
        /// Where udevd listens; it exists while udevd runs.
        public var udev: FilePath = "/run/udev/control"
        /// Where an interface's name is written to be offered to the drivers.
        public var probe: FilePath = "/sys/bus/usb/drivers_probe"
        /// For the owners' locks, `usb` below the service's run directory.
        public var locks: FilePath

        public init(locks: FilePath) { self.locks = locks }
    }

    private let places: Places
    private let tree: DeviceTree
    private let probeGuard: ProbeGuard
    /// How long to wait for what the kernel or a driver is doing.
    private static let patience = Duration.seconds(2)

    public init(_ places: Places) {
        self.places = places
        tree = DeviceTree(root: places.devices)
        probeGuard = ProbeGuard(tree: tree, probe: places.probe, locks: places.locks)
    }

    public func devices() throws(HostFailure) -> [USBDeviceFacts] { try tree.devices() }

    public func watch(on loop: EventLoop, _ changed: @escaping @Sendable () -> Void) throws(HostFailure) -> any USBWatch
    {
        try KernelWatch(loop: loop, udev: places.udev, changed)
    }

    public func open(_ facts: USBDeviceFacts, owner: String, on loop: EventLoop) throws(HostFailure)
        -> any OpenUSBDevice
    {
        KernelDevice(try handle(facts, owner: owner), loop)
    }

    private func handle(_ facts: USBDeviceFacts, owner: String) throws(HostFailure) -> USBHandle {
        // A former owner may have died while the bus's drivers were held off.
        probeGuard.restore(bus: facts.busNumber)
        let facts = try configured(facts)
        let lock = try DeviceLock(facts, owner: owner, in: places.locks)
        let file = try node(of: facts)
        // The number could have been reused before the node was opened. From now on it cannot.
        guard let now = tree.facts(of: facts.address), now.isSame(as: facts),
            let descriptors = tree.descriptors(of: facts.address)
        else { throw KernelUSB.gone(facts) }
        let handle = try USBHandle(file, facts, descriptors, lock: lock, probeGuard)
        do throws(HostFailure) { try claim(handle) } catch {
            handle.abandon()
            throw error
        }
        return handle
    }

    public func recover(_ goesOn: @Sendable (String) -> Bool) -> [String] {
        for bus in probeGuard.buses { probeGuard.restore(bus: bus) }
        var done: [String] = []
        for left in DeviceLock.abandoned(in: places.locks) where !goesOn(left.owner) {
            let all = (try? devices()) ?? []
            guard
                let facts = all.first(where: {
                    $0.busNumber == left.busNumber && $0.deviceNumber == left.deviceNumber
                })
            else {
                DeviceLock.forget(left, in: places.locks)
                continue
            }
            do throws(HostFailure) {
                let handle = try handle(facts, owner: "xenbackd, which gives it back to the host")
                handle.giveBack(isGone: false, configuration: facts.activeConfiguration)
                done.append("\(facts) is the host's again: \(left.owner) ended without giving it back")
            } catch {
                done.append("\(facts) of \(left.owner), which has ended, cannot be given back to the host: \(error)")
            }
        }
        return done
    }

    /// Waits until the kernel has chosen a configuration for a device that has just arrived, and checks that the device
    /// can be given away.
    private func configured(_ facts: USBDeviceFacts) throws(HostFailure) -> USBDeviceFacts {
        if facts.isHub { throw .hub(facts) }
        let end = ContinuousClock.now + KernelUSB.patience
        while true {
            guard let now = tree.facts(of: facts.address), now.isSame(as: facts) else { throw KernelUSB.gone(facts) }
            if now.activeConfiguration != nil || ContinuousClock.now > end { return now }
            if !tree.isAuthorized(facts.address) {
                throw HostFailure(
                    .denied,
                    "\(facts.address) is not authorized on this host; write 1 to "
                        + "\(places.devices)/\(facts.address)/authorized to let it be used"
                )
            }
            usleep(20_000)
        }
    }

    private func node(of facts: USBDeviceFacts) throws(HostFailure) -> OpenFile {
        func digits(_ number: UInt8) -> String { String(("00" + String(number)).suffix(3)) }
        let path = places.nodes.appending(digits(facts.busNumber)).appending(digits(facts.deviceNumber))
        do throws(Errno) { return try OpenFile(path: path.string, flags: O_RDWR) } catch {
            switch error {
            case .noSuchFileOrDirectory, .noSuchAddressOrDevice, Errno(rawValue: ENODEV): throw KernelUSB.gone(facts)
            case .permissionDenied, .notPermitted:
                throw HostFailure(.denied, "\(path) of \(facts.address): \(error); the service must be root")
            default: throw HostFailure(.host, "\(path) of \(facts.address) cannot be opened: \(error)")
            }
        }
    }

    /// Claims all interfaces; one that another program holds for a moment, or that the kernel is just changing, is
    /// tried again.
    private func claim(_ handle: USBHandle) throws(HostFailure) {
        let end = ContinuousClock.now + KernelUSB.patience
        let address = handle.facts.address
        while true {
            let code = handle.claim(handle.facts.activeConfiguration)
            if code == 0 { return }
            let failure = USBHandle.failure("the interfaces of \(address) cannot be claimed", code)
            guard let now = tree.facts(of: address), now.isSame(as: handle.facts) else {
                throw KernelUSB.gone(handle.facts)
            }
            if ContinuousClock.now > end || (failure.kind != .busy && failure.kind != .notFound) {
                let drivers = tree.drivers(of: address)
                if failure.kind != .busy || !drivers.contains("usbfs") { throw failure }
                throw HostFailure(.busy, "\(failure.text): another program uses them through usbfs (lsof finds it)")
            }
            usleep(50_000)
        }
    }

    private static func gone(_ facts: USBDeviceFacts) -> HostFailure {
        HostFailure(.notFound, "\(facts.address) is not plugged in (any more)")
    }
}

extension USBDeviceFacts {
    /// Whether both describe the same device, between its arrival and its departure.
    func isSame(as other: USBDeviceFacts) -> Bool {
        busNumber == other.busNumber && deviceNumber == other.deviceNumber && vendor == other.vendor
            && product == other.product
    }
}
