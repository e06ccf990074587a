// A USB controller as libxl describes it in XenStore.

internal import Hypervisor
internal import XenWire

/// A controller to be attached: xl's `type=pv`.
struct USBControllerSpecification: DeviceSpecification, Hashable {
    var domain: DomainID
    /// The number in XenStore, from 0.
    var index: UInt32
    /// 1 or 2.
    var version: Int
    /// 1 … 31.
    var portCount: Int
    /// Their assignments; the others are empty.
    var ports: [Int: String] = [:]

    var path: DevicePath { DevicePath(kind: .vusb, domain: domain, index: index) }
    var name: String { "USB controller \(index)" }
    var summary: String { "USB \(version), \(portCount) ports, \(ports.count) with a device" }
    var hasScript: Bool { false }

    /// libxl_usb.c, `libxl__device_usbctrl_add_xenstore`.
    func backendKeys(_ nodes: DeviceNodes) -> [(String, String)] {
        let keys = [
            (BusKeys.frontend, nodes.frontend),
            (BusKeys.frontendID, "\(domain)"),
            (BusKeys.online, "1"),
            (BusKeys.state, XenbusState.initialising.text),
            ("type", "pv"),
            ("usb-ver", "\(version)"),
            ("num-ports", "\(portCount)"),
            ("port", ""),
        ]
        return keys + (1...max(1, portCount)).map { ("port/\($0)", ports[$0] ?? "") }
    }

    var frontendKeys: [(String, String)] { [] }

    /// A number that no controller of the domain has (libxl_device.c, `libxl__device_nextid`); in a transaction.
    static func freeIndex(
        of domain: DomainID,
        in store: any XenStoreOperations
    ) throws(HypervisorFailure) -> UInt32 {
        let known =
            try (store.directory("/libxl/\(domain)/device/vusb") ?? [])
            + (store.directory("/local/domain/\(domain)/device/vusb") ?? [])
        let taken = Set(known.compactMap { UInt32(decimal: $0) })
        return (0...UInt32.max).first { !taken.contains($0) } ?? 0
    }
}
