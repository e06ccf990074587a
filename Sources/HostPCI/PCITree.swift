// The kernel's list of cards: /sys/bus/pci, read by ourselves.

public import HostIO
public import SystemPackage

/// What sysfs says (Linux, Documentation/ABI/testing/sysfs-bus-pci).
///
/// Everything may vanish while it is read: a card that lacks something needed is left out.
public struct PCITree: Sendable {
    /// /sys/bus/pci, or a copy of it.
    public let root: FilePath

    public init(root: FilePath = "/sys/bus/pci") { self.root = root }

    /// All functions, bridges included, in the order of their addresses. Empty on a host without PCI.
    public func devices() throws(HostFailure) -> [PCIDeviceFacts] {
        let names: [String]
        do throws(Errno) { names = try Files.names(in: root.appending("devices")) } catch {
            throw HostFailure(.host, "\(root)/devices cannot be read: \(error)")
        }
        return names.compactMap { PCIBusAddress($0) }.sorted().compactMap { facts(of: $0) }
    }

    /// What is at an address.
    /// - Throws: `.notFound`, saying where addresses are found.
    public func device(_ address: PCIBusAddress) throws(HostFailure) -> PCIDeviceFacts {
        guard let facts = facts(of: address) else {
            throw HostFailure(
                .notFound,
                "there is no card \(address) on this host; lspci -D lists those that there are"
            )
        }
        return facts
    }

    /// What is at an address, if anything is.
    public func facts(of address: PCIBusAddress) -> PCIDeviceFacts? {
        guard let vendor = hexadecimal(address, "vendor", as: UInt16.self),
            let product = hexadecimal(address, "device", as: UInt16.self),
            let classCode = hexadecimal(address, "class", as: UInt32.self),
            let resource = text(address, "resource")
        else { return nil }
        let windows = resource.split(separator: "\n").map { PCIWindow($0) }
        guard windows.allSatisfy({ $0 != nil }) else { return nil }
        var facts = PCIDeviceFacts(address: address, vendor: vendor, product: product, classCode: classCode)
        facts.windows = windows.compactMap { $0 }
        facts.subsystemVendor = hexadecimal(address, "subsystem_vendor", as: UInt16.self) ?? 0
        facts.subsystemProduct = hexadecimal(address, "subsystem_device", as: UInt16.self) ?? 0
        facts.interrupt = number(address, "irq") ?? 0
        facts.driver = linkName(address, "driver")
        let override = text(address, "driver_override")
        facts.driverOverride = override == "(null)" || override == "" ? nil : override
        facts.bridges = bridges(of: address)
        facts.group = linkName(address, "iommu_group").flatMap { UInt32($0) }
        facts.isBootVGA = text(address, "boot_vga") == "1"
        facts.physicalFunction = linkName(address, "physfn").flatMap { PCIBusAddress($0) }
        facts.virtualFunctionLimit = number(address, "sriov_totalvfs") ?? 0
        var index = 0
        while let name = linkName(address, "virtfn\(index)"), let function = PCIBusAddress(name) {
            facts.virtualFunctions.append(function)
            index += 1
        }
        return facts
    }

    /// The ways to reset a card that the kernel would try, the first one first; empty if it has none.
    public func resetMethods(of address: PCIBusAddress) -> [PCIResetMethod] {
        guard let words = text(address, "reset_method") else {
            // A kernel before 5.15 says only whether there is a way.
            return exists(address, "reset") ? [.unknown] : []
        }
        return words.split(separator: " ").map { PCIResetMethod(rawValue: String($0)) }
    }

    /// A copy of the configuration space: all of it for root, 64 bytes for others.
    public func configuration(of address: PCIBusAddress) throws(HostFailure) -> PCIConfigurationBytes {
        let path = directory(address).appending("config")
        do throws(Errno) { return PCIConfigurationBytes(try Files.contents(of: path, limit: 4096)) } catch {
            throw HostFailure(error == .noSuchFileOrDirectory ? .notFound : .host, "\(path) cannot be read: \(error)")
        }
    }

    /// The cards that must have the same owner as this one, in their order.
    ///
    /// - Members of its IOMMU group, where the kernel has groups.
    /// - Behind a bridge to conventional PCI all cards of the bus: the IOMMU cannot tell them apart.
    /// - Other functions of the device, if the only way to reset it resets them all.
    public func companions(of facts: PCIDeviceFacts) throws(HostFailure) -> [PCIDeviceFacts] {
        let others = try devices().filter { $0.address != facts.address && !$0.isBridge }
        if let group = facts.group { return others.filter { $0.group == group } }
        // Of a card that does not show its capabilities the worse is assumed.
        let space = try configuration(of: facts.address)
        let isExpress = space.capabilities.contains { $0.id == PCICapability.express && !$0.isExtended }
        let isConventional = facts.bridge != nil && facts.physicalFunction == nil && !isExpress
        // Virtual functions have a reset of their own, or none; their card is not theirs to take along.
        let resetsOthers =
            facts.physicalFunction == nil && !resetMethods(of: facts.address).contains(where: \.isOwnFunctionOnly)
        return others.filter { other in
            let sameBus = other.address.domain == facts.address.domain && other.address.bus == facts.address.bus
            return isConventional && sameBus || resetsOthers && other.address.sharesDevice(with: facts.address)
        }
    }

    /// The network interfaces that a card's driver has made.
    public func interfaces(of address: PCIBusAddress) -> [String] {
        ((try? Files.names(in: directory(address).appending("net"))) ?? []).sorted()
    }

    /// Whether the kernel has such a driver.
    public func hasDriver(_ name: String) -> Bool {
        (try? Files.names(in: root.appending("drivers")))?.contains(name) ?? false
    }

    func directory(_ address: PCIBusAddress) -> FilePath { root.appending("devices").appending("\(address)") }

    /// The directory is a link: `../../../devices/pci0000:00/0000:00:1c.0/0000:08:05.0`.
    private func bridges(of address: PCIBusAddress) -> [PCIBusAddress] {
        guard let target = try? Files.target(ofLink: directory(address)) else { return [] }
        return target.split(separator: "/").dropLast().compactMap { PCIBusAddress(String($0)) }
    }

    private func exists(_ address: PCIBusAddress, _ name: String) -> Bool {
        (try? Files.names(in: directory(address)))?.contains(name) ?? false
    }

    private func linkName(_ address: PCIBusAddress, _ name: String) -> String? {
        let target = try? Files.target(ofLink: directory(address).appending(name))
        return target.flatMap { FilePath($0).lastComponent?.string }
    }

    private func number<N: FixedWidthInteger>(_ address: PCIBusAddress, _ name: String) -> N? {
        text(address, name).flatMap { N($0) }
    }

    private func hexadecimal<N: FixedWidthInteger>(_ address: PCIBusAddress, _ name: String, as type: N.Type) -> N? {
        text(address, name).flatMap { PCIText.prefixed(Substring($0), as: type) }
    }

    /// A file's text without blanks around it.
    private func text(_ address: PCIBusAddress, _ name: String) -> String? {
        guard let bytes = try? Files.contents(of: directory(address).appending(name), limit: 4096) else { return nil }
        let blanks: Set<UInt8> = [0x20, 0x0a]
        var line = bytes[...]
        while let first = line.first, blanks.contains(first) { line.removeFirst() }
        while let last = line.last, blanks.contains(last) { line.removeLast() }
        return String(decoding: line, as: UTF8.self)
    }
}
