// A USB host controller as a configuration describes it.

/// What `vusb=["usbver=2, numports=8, port_1=1-1"]` says (xm 4.0, `xmdomain.cfg`; ports up to 31 as usbif.h has them), or
/// `usbctrl=['type=pv,version=2,ports=8']` (xl.cfg(5)). Keys of both may be mixed.
public struct USBLine: Equatable, Sendable {
    /// The version of the controller that the guest sees: version 1 has full and low speed only.
    public enum Version: Int, Sendable, CaseIterable {
        case usb1 = 1
        case usb2 = 2
    }

    /// The assignment of one port.
    public struct Port: Equatable, Sendable {
        /// From 1.
        public var number: Int
        /// A bus id (`1-1.4`) or a rule, for the daemon to read.
        public var device: String
        /// Characters of the line before `device`.
        public var position: Int

        public init(number: Int, device: String, position: Int = 0) {
            self.number = number
            self.device = device
            self.position = position
        }
    }

    /// usbif.h: 1 … 31, in `num-ports`.
    public static let portLimit = 31

    public var version: Version
    /// 1 … 31.
    public var portCount: Int
    /// Ports that have a device, in order of their numbers.
    public var ports: [Port]

    public init(version: Version = .usb2, portCount: Int = 8, ports: [Port] = []) {
        self.version = version
        self.portCount = portCount
        self.ports = ports
    }

    /// Reads a line. Keys come in any order; blanks mean nothing.
    public init(parsing line: String) throws(DeviceLineError) {
        var parser = USBLineParser(line)
        self = try parser.parse()
    }

    /// The line, without defaults.
    public var text: String {
        (["usbver=\(version.rawValue)", "numports=\(portCount)"] + ports.map { "port_\($0.number)=\($0.device)" })
            .joined(separator: ", ")
    }
}
