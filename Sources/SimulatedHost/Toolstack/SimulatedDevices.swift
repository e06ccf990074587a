// Disks and network cards as libxl describes them in XenStore.

public import XenWire

extension SimulatedToolstack {
    /// A disk to attach.
    public struct Disk: SimulatedDevice {
        public var path: DevicePath
        public var backendDomain = DomainID.initial
        /// The guest's name for it.
        public var device = "xvda"
        public var params: String
        public var isReadOnly = false
        public var isCDROM = false
        public var isRemovable = false
        public var script: String?
        /// The protocol libxl writes for a PV guest; nil as for HVM and PVH guests.
        public var guestProtocol: String?
        /// Written last, so they replace the usual ones.
        public var extraBackendNodes: [(String, String)] = []
        public var extraFrontendNodes: [(String, String)] = []

        public init(_ path: DevicePath, params: String) {
            self.path = path
            self.params = params
        }

        public var backendKeys: [(String, String)] {
            var keys = [
                (BusKeys.frontend, path.frontend),
                (BusKeys.frontendID, "\(path.domain)"),
                (BusKeys.online, "1"),
                (BlockKeys.removable, isRemovable || isCDROM ? "1" : "0"),
                ("bootable", "1"),
                (BusKeys.state, XenbusState.initialising.text),
                (BlockKeys.device, device),
                (BlockKeys.type, path.kind == .vbd3 ? "tap" : path.kind == .qdisk ? "qdisk" : "phy"),
                (BlockKeys.mode, isReadOnly || isCDROM ? "r" : "w"),
                (BlockKeys.deviceType, isCDROM ? "cdrom" : "disk"),
                (BlockKeys.directIOSafe, "0"),
                (BlockKeys.discardEnable, isReadOnly ? "0" : "1"),
                ("specification", "xen"),
                (BlockKeys.params, params),
            ]
            if let script { keys.append((BusKeys.script, script)) }
            return keys + extraBackendNodes
        }

        public var frontendKeys: [(String, String)] {
            var keys = [
                (BusKeys.backend, backend),
                (BusKeys.backendID, "\(backendDomain)"),
                (BusKeys.state, XenbusState.initialising.text),
                (BlockKeys.virtualDevice, "\(path.index)"),
                (BlockKeys.deviceType, isCDROM ? "cdrom" : "disk"),
                (BlockKeys.trusted, "1"),
            ]
            if let guestProtocol { keys.append((BlockKeys.protocol, guestProtocol)) }
            return keys + extraFrontendNodes
        }
    }

    /// A network card to attach (libxl_nic.c, `libxl__set_xenstore_nic`).
    public struct NetworkCard: SimulatedDevice {
        public var path: DevicePath
        public var backendDomain = DomainID.initial
        public var mac = MACAddress(0x00, 0x16, 0x3E, 0, 0, 1)
        public var bridge: String? = "xenbr0"
        public var script: String? = "/etc/xen/scripts/vif-bridge"
        /// `ip`: addresses for `vif-route` and for filters.
        public var ip: String?
        public var gatewayDevice: String?
        public var vlan: String?
        public var interfaceName: String?
        /// `<bytes>,<microseconds>`
        public var rate: String?
        public var mtu: UInt32?
        public var trusted = true
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
            ]
            let optional: [(String, String?)] = [
                (BusKeys.script, script), (NetKeys.interfaceName, interfaceName), (NetKeys.mac, mac.description),
                (NetKeys.ip, ip), (NetKeys.gatewayDevice, gatewayDevice), (NetKeys.vlan, vlan), (NetKeys.rate, rate),
                (NetKeys.mtu, mtu.map { "\($0)" }), (NetKeys.bridge, bridge),
            ]
            for case (let key, let value?) in optional { keys.append((key, value)) }
            keys += [(NetKeys.handle, "\(path.index)"), (NetKeys.type, "vif"), (BusKeys.hotplugStatus, "")]
            return keys + extraBackendNodes
        }

        public var frontendKeys: [(String, String)] {
            var keys = [
                (BusKeys.backend, backend),
                (BusKeys.backendID, "\(backendDomain)"),
                (BusKeys.state, XenbusState.initialising.text),
                (NetKeys.handle, "\(path.index)"),
                (NetKeys.mac, mac.description),
                (NetKeys.trusted, trusted ? "1" : "0"),
            ]
            if let mtu { keys.append((NetKeys.mtu, "\(mtu)")) }
            return keys + extraFrontendNodes
        }
    }
}
