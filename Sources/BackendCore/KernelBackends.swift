// The kernel's own backends: which devices they have, which they would take, and how one is given to them.

internal import HostIO
public import SystemPackage
public import XenWire

/// The kernel's xen-backend bus and the drivers on it (Linux, drivers/base/bus.c): xen-blkback, xen-netback, xen-pciback.
///
/// Two backends on one device break it, so each device is either theirs or ours. Calls may block: a driver probes inside
/// of the write.
public struct KernelBackends: Sendable {
    public let bus: FilePath

    public init(bus: FilePath = "/sys/bus/xen-backend") { self.bus = bus }

    /// The kinds that the kernel has drivers for, with the drivers' names on the bus.
    public static func driver(of kind: DeviceKind) -> String? {
        switch kind {
        case .vbd: "vbd"
        case .vif: "vif"
        // The driver of the cards themselves, the stub, is called pciback and stands on the PCI bus.
        case .pci: "xen-pciback"
        case .vif2, .vbd3, .qdisk, .vusb, .qusb: nil
        }
    }

    /// A device's name on the bus: `vbd-7-51712`.
    public static func name(of path: DevicePath) -> String { "\(path.kind)-\(path.domain)-\(path.index)" }

    /// Whether a driver of the kernel has the device.
    public func has(_ path: DevicePath) -> Bool {
        let link = bus.appending("devices").appending(KernelBackends.name(of: path)).appending("driver")
        return (try? Files.target(ofLink: link)) != nil
    }

    /// Whether the kernel takes every new device of a kind, as soon as it sees it.
    public func takesAll(_ kind: DeviceKind) -> Bool {
        guard let driver = KernelBackends.driver(of: kind), probesByItself else { return false }
        return (try? Files.names(in: bus.appending("drivers")))?.contains(driver) ?? false
    }

    /// Whether a device is the kernel's, or is about to be.
    /// - Parameter isNew: it is in state 1, so that nobody has begun to serve it.
    public func own(_ path: DevicePath, isNew: Bool) -> Bool { has(path) || isNew && takesAll(path.kind) }

    /// Whether new devices are offered to all drivers of the bus. False where there is no such bus.
    public var probesByItself: Bool {
        (try? Files.contents(of: bus.appending("drivers_autoprobe"), limit: 16))?.first == UInt8(ascii: "1")
    }

    /// From now on devices go to the kernel's drivers only if somebody gives them. What they have they keep.
    public func stopProbing() throws(Errno) {
        if probesByItself { try Files.write("0", to: bus.appending("drivers_autoprobe")) }
    }

    /// Gives one device to the kernel's driver for its kind.
    /// - Throws: ENOENT if the driver is not loaded, what its probe returned otherwise.
    public func give(_ path: DevicePath) throws(Errno) {
        guard let driver = KernelBackends.driver(of: path.kind) else { throw .noSuchFileOrDirectory }
        try Files.write(KernelBackends.name(of: path), to: bus.appending("drivers").appending(driver).appending("bind"))
    }
}
