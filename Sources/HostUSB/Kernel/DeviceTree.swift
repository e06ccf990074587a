// The kernel's list of devices: /sys/bus/usb/devices, read by ourselves.

internal import HostIO
internal import SystemPackage

/// What sysfs says (Linux, Documentation/ABI/testing/sysfs-bus-usb and stable/sysfs-bus-usb).
///
/// Anything may disappear while it is read: a device with something missing counts as absent.
struct DeviceTree: Sendable {
    /// /sys/bus/usb/devices, or a copy of it.
    let root: FilePath

    /// All devices but root hubs, in the order of their addresses. Empty on a host without USB.
    func devices() throws(HostFailure) -> [USBDeviceFacts] {
        let names: [String]
        do throws(Errno) { names = try Files.names(in: root) } catch {
            throw HostFailure(.host, "\(root) cannot be read: \(error)")
        }
        return names.compactMap { USBBusAddress($0) }.sorted().compactMap { facts(of: $0) }
    }

    /// The device plugged in at a place, if any.
    func facts(of address: USBBusAddress) -> USBDeviceFacts? {
        guard let bus = number(address, "busnum"), let device = number(address, "devnum"),
            let vendor = hexadecimal(address, "idVendor", as: UInt16.self),
            let product = hexadecimal(address, "idProduct", as: UInt16.self),
            let deviceClass = hexadecimal(address, "bDeviceClass", as: UInt8.self),
            let speed = text(address, "speed").flatMap(DeviceTree.speed)
        else { return nil }
        var facts = USBDeviceFacts(
            address: address,
            busNumber: bus,
            deviceNumber: device,
            vendor: vendor,
            product: product,
            deviceClass: deviceClass,
            speed: speed
        )
        facts.release = hexadecimal(address, "bcdDevice", as: UInt16.self) ?? 0
        facts.manufacturerName = words(address, "manufacturer")
        facts.productName = words(address, "product")
        facts.serial = words(address, "serial")
        facts.configurationCount = number(address, "bNumConfigurations") ?? 1
        facts.activeConfiguration = number(address, "bConfigurationValue")
        facts.interfaceClasses = interfaceClasses(of: address)
        return facts
    }

    /// Whether the kernel may use the device at all (`authorized`).
    func isAuthorized(_ address: USBBusAddress) -> Bool { text(address, "authorized") != "0" }

    /// The descriptors as the kernel read them.
    func descriptors(of address: USBBusAddress) -> USBDescriptors? {
        // A configuration has at most 65 535 bytes, and the kernel takes at most eight (USB_MAXCONFIG).
        let path = directory(address).appending("descriptors")
        guard let bytes = try? Files.contents(of: path, limit: 18 + 8 << 16) else { return nil }
        return USBDescriptors(bytes)
    }

    /// The drivers of the interfaces, for messages: `usb-storage`, `usbfs`.
    func drivers(of address: USBBusAddress) -> [String] {
        interfaces(of: address).compactMap { interface in
            (try? Files.target(ofLink: interface.appending("driver"))).flatMap { FilePath($0).lastComponent?.string }
        }
    }

    // MARK: authorization (Linux, Documentation/usb/authorization.rst)

    /// Whether interfaces that are made on this bus are offered to drivers; false where the host's administrator does
    /// not want that, or the kernel has no such control.
    func authorizesInterfaces(ofBus bus: UInt8) -> Bool { DeviceTree.text(defaultControl(bus)) == "1" }

    /// Whether the administrator has decided that no driver gets an interface by itself.
    func withholdsInterfaces(ofBus bus: UInt8) -> Bool { DeviceTree.text(defaultControl(bus)) == "0" }

    func authorizeInterfaces(ofBus bus: UInt8, _ isAuthorized: Bool) {
        Sysfs.write(isAuthorized ? "1" : "0", to: defaultControl(bus))
    }

    private func defaultControl(_ bus: UInt8) -> FilePath {
        root.appending("usb\(bus)").appending("interface_authorized_default")
    }

    /// Names of unauthorized interfaces of all devices of the bus.
    func unauthorizedInterfaces(ofBus bus: UInt8) -> [String] {
        addresses(ofBus: bus).flatMap { interfaceNames(of: $0) }.filter { name in
            interfaceDirectory(name).map { DeviceTree.text($0.appending("authorized")) == "0" } ?? false
        }
    }

    /// Devices whose interfaces the kernel is still making, or that have no configuration.
    func unsettledDevices(ofBus bus: UInt8) -> [String] {
        addresses(ofBus: bus).filter { address in
            guard isAuthorized(address), let count = number(address, "bNumInterfaces") else {
                return isAuthorized(address)
            }
            return interfaceNames(of: address).count < Int(count)
        }.map(\.description)
    }

    func authorize(interface name: String, _ isAuthorized: Bool = true) {
        guard let directory = interfaceDirectory(name) else { return }
        Sysfs.write(isAuthorized ? "1" : "0", to: directory.appending("authorized"))
    }

    /// `3-1.5:1.0` for each interface of the active configuration.
    func interfaceNames(of address: USBBusAddress) -> [String] {
        interfaces(of: address).compactMap { $0.lastComponent?.string }
    }

    private func interfaceDirectory(_ name: String) -> FilePath? {
        USBBusAddress(String(name.prefix { $0 != ":" })).map { directory($0).appending(name) }
    }

    /// Of all devices but the root hub.
    private func addresses(ofBus bus: UInt8) -> [USBBusAddress] {
        ((try? Files.names(in: root)) ?? []).compactMap { USBBusAddress($0) }.filter { $0.bus == bus }.sorted()
    }

    private func directory(_ address: USBBusAddress) -> FilePath { root.appending("\(address)") }

    private func interfaces(of address: USBBusAddress) -> [FilePath] {
        let names = (try? Files.names(in: directory(address))) ?? []
        return names.filter { $0.hasPrefix("\(address):") }.sorted().map { directory(address).appending($0) }
    }

    private func interfaceClasses(of address: USBBusAddress) -> [UInt8] {
        let classes = interfaces(of: address).compactMap { interface in
            DeviceTree.text(interface.appending("bInterfaceClass")).flatMap { USBText.number($0, as: UInt8.self) }
        }
        return Set(classes).sorted()
    }

    private func number(_ address: USBBusAddress, _ name: String) -> UInt8? {
        text(address, name).flatMap { UInt8($0) }
    }

    private func hexadecimal<N: FixedWidthInteger>(_ address: USBBusAddress, _ name: String, as type: N.Type) -> N? {
        text(address, name).flatMap { USBText.number($0, as: type) }
    }

    /// A string descriptor; nil if there is none.
    private func words(_ address: USBBusAddress, _ name: String) -> String? {
        guard let text = text(address, name), !text.isEmpty else { return nil }
        return String(text.prefix(255))
    }

    private func text(_ address: USBBusAddress, _ name: String) -> String? {
        DeviceTree.text(directory(address).appending(name))
    }

    /// A file's line, trimmed.
    private static func text(_ path: FilePath) -> String? {
        guard let bytes = try? Files.contents(of: path, limit: 4096) else { return nil }
        let blanks: Set<UInt8> = [0x20, 0x0a]
        var line = bytes[...]
        while let first = line.first, blanks.contains(first) { line.removeFirst() }
        while let last = line.last, blanks.contains(last) { line.removeLast() }
        return String(decoding: line, as: UTF8.self)
    }

    /// Megabits per second as the kernel writes them (drivers/usb/core/sysfs.c, `speed_show`).
    static func speed(_ text: String) -> USBSpeed? {
        switch text {
        case "1.5": .low
        case "12": .full
        case "480": .high
        case "5000", "10000", "20000": .super
        default: nil
        }
    }
}
