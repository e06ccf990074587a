// A USB controller as libxl describes it in XenStore.

public import FrontendDrivers
internal import Hypervisor
public import XenWire

extension SimulatedToolstack {
    /// A controller to attach (libxl_usb.c, `libxl__device_usbctrl_add_xenstore`). Kind `vusb` is libxl's `type=pv`, kind `qusb`
    /// its `type=qusb`; the frontend's kind is `vusb` for both.
    public struct USBController: SimulatedDevice {
        public var path: DevicePath
        public var backendDomain = DomainID.initial
        public var version = USBVersion.usb20
        public var portCount = 8
        /// What `port/N` says from the beginning; libxl leaves all of them empty.
        public var ports: [USBPort: String] = [:]
        /// Written last, so they replace the usual ones.
        public var extraBackendNodes: [(String, String)] = []
        public var extraFrontendNodes: [(String, String)] = []

        public init(_ path: DevicePath) { self.path = path }

        public var backendKeys: [(String, String)] {
            var keys = [
                (BusKeys.frontend, path.frontend),
                (BusKeys.frontendID, "\(path.domain)"),
                (BusKeys.online, "1"),
                (BusKeys.state, XenbusState.initialising.text),
                (USBKeys.type, path.kind == .qusb ? "qusb" : "pv"),
                (USBKeys.version, "\(version.rawValue)"),
                (USBKeys.portCount, "\(portCount)"),
                (USBKeys.ports, ""),
            ]
            for port in (1...max(1, portCount)).compactMap({ USBPort($0) }) {
                keys.append((USBKeys.port(port), ports[port] ?? ""))
            }
            return keys + extraBackendNodes
        }

        public var frontendKeys: [(String, String)] {
            [
                (BusKeys.backend, backend),
                (BusKeys.backendID, "\(backendDomain)"),
                (BusKeys.state, XenbusState.initialising.text),
            ] + extraFrontendNodes
        }
    }

    /// Writes `port/N`, as `xl usbdev-attach` and `usbdev-detach` do.
    /// - Parameter busID: `3-1.5`, or nothing for none.
    public func plug(
        _ busID: String,
        into port: USBPort,
        of controller: USBController
    ) async throws(FrontendFailure) {
        let node = "\(controller.backend)/\(USBKeys.port(port))"
        try await storing { () async throws(HypervisorFailure) in try await store.write(node, busID) }
    }
}
