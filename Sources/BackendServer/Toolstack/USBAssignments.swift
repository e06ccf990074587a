// Which port has which device: the assignments of all USB controllers in XenStore, and checks of new ones.

internal import ControlProtocol
internal import HostIO
internal import HostUSB
internal import Hypervisor
internal import XenWire

/// What is written in the ports of all controllers of this backend domain, whoever serves them.
struct USBAssignments: Sendable {
    /// A port that is not empty.
    struct Entry: Sendable {
        var path: DevicePath
        /// From 1.
        var port: Int
        /// The text in XenStore.
        var text: String
        /// nil: malformed.
        var rule: USBDeviceRule?

        /// `port 2 of USB controller 0 of domain 7`
        var place: String { "port \(port) of USB controller \(path.index) of domain \(path.domain)" }
        /// The command that empties it.
        var cure: String { "xenback usb-detach \(path.domain) \(path.index) \(port)" }
    }

    var entries: [Entry] = []

    /// Reads them all; in a transaction, if something is to be written afterwards.
    static func read(_ store: any XenStoreOperations) throws(HypervisorFailure) -> USBAssignments {
        var found = USBAssignments()
        for kind in [DeviceKind.vusb, .qusb] {
            for domain in try (store.directory("backend/\(kind)") ?? []).compactMap({ DomainID(text: $0) }) {
                let names = try store.directory("backend/\(kind)/\(domain)") ?? []
                for index in names.compactMap({ UInt32(decimal: $0) }) {
                    try found.add(DevicePath(kind: kind, domain: domain, index: index), store)
                }
            }
        }
        return found
    }

    private mutating func add(_ path: DevicePath, _ store: any XenStoreOperations) throws(HypervisorFailure) {
        for number in try (store.directory("\(path)/port") ?? []).compactMap({ UInt32(decimal: $0) }) {
            guard let text = try store.read("\(path)/port/\(number)"), !text.isEmpty else { continue }
            let rule = try? USBDeviceRule(text)
            entries.append(Entry(path: path, port: Int(number), text: text, rule: rule))
        }
    }

    /// `num-ports` as usbif.h has it; nil if there is no such controller or the value is invalid.
    static func portCount(of path: DevicePath, _ store: any XenStoreOperations) throws(HypervisorFailure) -> Int? {
        guard let text = try store.read("\(path)/num-ports"), let count = UInt32(decimal: text),
            (1...UInt32(USBLine.portLimit)).contains(count)
        else { return nil }
        return Int(count)
    }

    func text(in port: Int, of path: DevicePath) -> String? {
        entries.first { $0.path == path && $0.port == port }?.text
    }

    /// The port that is assigned to the device plugged in there.
    func holder(of address: USBBusAddress) -> Entry? { entries.first { $0.rule?.address == address } }

    /// Whether a port may have this.
    ///
    /// A rule may match a device that another port has: it finds another one, or waits until that is free.
    /// - Parameters:
    ///   - devices: all of the host.
    ///   - held: ports whose rules have found a device, by where that is.
    /// - Throws: `.deviceFailed` with what to do.
    func check(
        _ text: String,
        among devices: [USBDeviceFacts],
        held: [USBBusAddress: Entry]
    ) throws(ControlError) -> USBDeviceRule {
        let rule: USBDeviceRule
        let text = try USBPortText.resolved(text, among: devices)
        do throws(HostFailure) {
            rule = try USBDeviceRule(text)
        } catch {
            throw .deviceFailed(reason: error.text)
        }
        guard let address = rule.address else { return rule }
        guard let device = devices.first(where: { $0.address == address }) else {
            throw .deviceFailed(
                reason:
                    "there is no USB device at \(address); xenback usb-list-assignable-devices shows those there are"
            )
        }
        guard !device.isHub else {
            throw .deviceFailed(reason: "the device at \(address) is a hub; attach what is plugged into it, one by one")
        }
        if let entry = holder(of: address) ?? held[address] {
            throw .deviceFailed(reason: "the device at \(address) is in \(entry.place); first: \(entry.cure)")
        }
        return rule
    }

    /// What is wrong with one of a new controller's ports.
    func objection(
        to line: USBLine,
        among devices: [USBDeviceFacts],
        held: [USBBusAddress: Entry]
    ) -> ControlError? {
        for port in line.ports {
            do throws(ControlError) {
                _ = try check(port.device, among: devices, held: held)
            } catch {
                return .badUSBLine(reason: error.description, position: port.position)
            }
        }
        return nil
    }

    func checkEmpty(_ port: Int, of path: DevicePath, count: Int?) throws(ControlError) {
        try check(port, of: path, count: count)
        guard let text = text(in: port, of: path) else { return }
        let entry = Entry(path: path, port: port, text: text)
        throw .deviceFailed(reason: "\(entry.place) has \(text) already; first: \(entry.cure)")
    }

    func checkFull(_ port: Int, of path: DevicePath, count: Int?) throws(ControlError) -> String {
        try check(port, of: path, count: count)
        guard let text = text(in: port, of: path) else {
            throw .deviceFailed(reason: "\(Entry(path: path, port: port, text: "").place) is empty")
        }
        return text
    }

    private func check(_ port: Int, of path: DevicePath, count: Int?) throws(ControlError) {
        guard let count else { throw .noSuchDevice(domain: "\(path.domain)", device: path.nameInDomain) }
        guard (1...count).contains(port) else {
            throw .deviceFailed(reason: "USB controller \(path.index) has the ports 1 … \(count), not \(port)")
        }
    }
}
