// Cards taken from the host's drivers, and given back to them.

public import HostIO
public import SystemPackage

/// Binds cards to a driver that does nothing, and remembers whose they were.
///
/// A card that is bound to the stub is *hidden*: no driver of the host touches it, and it can be given to a guest. The
/// stub is the kernel's xen-pciback where libxl is used, which looks into its directory; elsewhere pci-stub and
/// vfio-pci do as well.
public struct PCIStub: Sendable {
    /// Writes a text into one of the kernel's files; tests put a kernel of their own here.
    public typealias Write = @Sendable (_ text: String, _ path: FilePath) throws(Errno) -> Void

    public let tree: PCITree
    /// The stub's name in /sys/bus/pci/drivers: `pciback`.
    public let name: String
    /// Where the drivers of hidden cards are written down, one file for each: outlives the service.
    public let memory: FilePath
    private let write: Write

    public init(
        tree: PCITree = PCITree(),
        name: String = "pciback",
        memory: FilePath,
        write: @escaping Write = PCIStub.writeNow
    ) {
        self.tree = tree
        self.name = name
        self.memory = memory
        self.write = write
    }

    /// Into the running kernel's file, with one write(2).
    public static let writeNow: Write = { text, path throws(Errno) in try Files.write(text, to: path) }

    /// Cards that are hidden, in the order of their addresses.
    public func hidden() throws(HostFailure) -> [PCIDeviceFacts] { try tree.devices().filter { $0.driver == name } }

    /// Takes a card from the driver that has it, and keeps all others from taking it. Nothing happens to one that is
    /// hidden.
    ///
    /// `driver_override` is written first: between two drivers nobody else gets the card.
    /// - Returns: the driver that had it.
    /// - Throws: `.notFound`; `.denied` for a bridge; `.busy` for a card with virtual functions; `.host` without the
    ///   stub, or if a driver does not let go: then the card is put back as it was, as far as the kernel lets us.
    @discardableResult
    public func hide(_ address: PCIBusAddress) throws(HostFailure) -> String? {
        let facts = try tree.device(address)
        if facts.driver == name { return remembered(address) }
        guard !facts.isBridge else {
            throw HostFailure(.denied, "\(address) is a bridge; cards are hidden, not what they are plugged into")
        }
        guard facts.virtualFunctions.isEmpty else {
            let count = facts.virtualFunctions.count
            throw HostFailure(
                .busy,
                "\(address) has \(count) virtual functions, which go with its driver; "
                    + "xenback pci-vf \(address) --count 0 first"
            )
        }
        guard tree.hasDriver(name) else {
            let module = name == "pciback" ? "xen-pciback" : name
            throw HostFailure(.host, "the kernel has no driver \(name); modprobe \(module)")
        }
        let directory = tree.directory(address)
        if let driver = facts.driver { try remember(driver, of: address) }
        do throws(Errno) {
            try write(name, directory.appending("driver_override"))
            if facts.driver != nil { try write("\(address)", directory.appending("driver/unbind")) }
            try write("\(address)", tree.root.appending("drivers_probe"))
        } catch {
            giveBack(address, to: facts)
            throw HostFailure(.host, "\(address) cannot be hidden: \(error); see the kernel's log")
        }
        guard tree.facts(of: address)?.driver == name else {
            giveBack(address, to: facts)
            throw HostFailure(.host, "\(name) did not take \(address); see the kernel's log")
        }
        return facts.driver
    }

    /// Gives a hidden card back to the driver that had it, or to whichever wants it if that is not known. Nothing
    /// happens to a card that a driver of the host has.
    /// - Parameter rebinds: false leaves it without a driver; the next probe may give it one.
    /// - Returns: the driver that has it now; nil if none has, which is no error.
    @discardableResult
    public func unhide(_ address: PCIBusAddress, rebinds: Bool = true) throws(HostFailure) -> String? {
        let facts = try tree.device(address)
        // One that the toolstack has taken from the stub has no driver, and is given back all the same.
        guard facts.driver == nil || facts.driver == name || facts.driverOverride == name else { return facts.driver }
        let directory = tree.directory(address)
        let driver = remembered(address)
        do throws(Errno) {
            if facts.driver == name { try write("\(address)", directory.appending("driver/unbind")) }
            // An empty line ends the override (Linux, drivers/base/driver.c, `driver_set_override`).
            if facts.driverOverride == name { try write("\n", directory.appending("driver_override")) }
        } catch {
            throw HostFailure(.host, "\(name) does not let go of \(address): \(error); is a guest using it?")
        }
        // xen-pciback takes what was in its own list at the boot (its parameter `hide`) again, whoever asks for a probe. A card that is
        // not in it is no error, and other stubs have no such list.
        try? write("\(address)", tree.root.appending("drivers/\(name)/remove_slot"))
        defer { try? Files.remove(memory.appending("\(address)")) }
        guard rebinds else { return nil }
        // A driver that is gone, or does not want the card any more, is not worth an error: the card is not hidden now.
        if let driver, tree.hasDriver(driver) {
            try? write("\(address)", tree.root.appending("drivers/\(driver)/bind"))
        }
        if tree.facts(of: address)?.driver == nil { try? write("\(address)", tree.root.appending("drivers_probe")) }
        return tree.facts(of: address)?.driver
    }

    /// The driver that had a hidden card before.
    public func remembered(_ address: PCIBusAddress) -> String? {
        guard let bytes = try? Files.contents(of: memory.appending("\(address)"), limit: 256) else { return nil }
        let name = String(decoding: bytes.prefix { $0 != 0x0a }, as: UTF8.self)
        // It becomes a part of a path.
        return name.isEmpty || name.contains("/") || name.hasPrefix(".") ? nil : name
    }

    private func remember(_ driver: String, of address: PCIBusAddress) throws(HostFailure) {
        let path = memory.appending("\(address)")
        do throws(Errno) {
            try Files.makeDirectory(memory, permissions: [.ownerReadWriteExecute])
            try Files.remove(path)
            try Files.make(path, driver + "\n", permissions: [.ownerReadWrite])
        } catch {
            throw HostFailure(.host, "\(path) cannot be written: \(error)")
        }
    }

    /// After a failure, as well as it goes.
    private func giveBack(_ address: PCIBusAddress, to facts: PCIDeviceFacts) {
        let directory = tree.directory(address)
        try? write(facts.driverOverride ?? "\n", directory.appending("driver_override"))
        if let driver = facts.driver, tree.facts(of: address)?.driver == nil {
            try? write("\(address)", tree.root.appending("drivers/\(driver)/bind"))
        }
        try? Files.remove(memory.appending("\(address)"))
    }
}

extension PCIStub {
    /// Puts a card into its initial state, by the first way that works.
    /// - Throws: `.denied` if there is none, `.host` if the kernel fails.
    public func reset(_ address: PCIBusAddress) throws(HostFailure) {
        _ = try tree.device(address)
        guard !tree.resetMethods(of: address).isEmpty else {
            throw HostFailure(
                .denied,
                "\(address) cannot be reset: it has neither FLR nor power states, nor a bus of its own"
            )
        }
        do throws(Errno) { try write("1", tree.directory(address).appending("reset")) } catch {
            throw HostFailure(.host, "\(address) cannot be reset: \(error); see the kernel's log")
        }
    }

    /// Makes or removes virtual functions. No driver of the host takes them.
    /// - Parameter count: 0 removes them all. The kernel changes the number only from or to 0.
    public func makeVirtualFunctions(_ count: UInt16, of address: PCIBusAddress) throws(HostFailure) {
        let facts = try tree.device(address)
        guard facts.virtualFunctionLimit > 0 else {
            throw HostFailure(.denied, "\(address) has no virtual functions (SR-IOV), or its driver is not loaded")
        }
        guard count <= facts.virtualFunctionLimit else {
            throw HostFailure(.invalid, "\(address) has \(facts.virtualFunctionLimit) virtual functions at most")
        }
        if Int(count) == facts.virtualFunctions.count { return }
        guard let driver = facts.driver, driver != name else {
            let cure =
                facts.driver == nil ? "load that driver" : "xenback pci-assignable-remove -r \(address) gives it back"
            throw HostFailure(.denied, "\(address)'s virtual functions are made by its own driver; \(cure)")
        }
        let directory = tree.directory(address)
        do throws(Errno) {
            try write("0", directory.appending("sriov_drivers_autoprobe"))
            if !facts.virtualFunctions.isEmpty { try write("0", directory.appending("sriov_numvfs")) }
            if count > 0 { try write("\(count)", directory.appending("sriov_numvfs")) }
        } catch {
            throw HostFailure(
                .host,
                "\(address) does not make \(count) virtual functions: \(error); see the kernel's log"
            )
        }
    }
}
