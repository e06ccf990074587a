// The assignments of a guest's ports, kept over a restart of the guest, for which libxl does not keep them.

internal import HostUSB
internal import Hypervisor
internal import XenWire

/// The ports of one guest's USB controllers that our verbs filled, below `xenback/usb/<UUID>/<controller>` in our own
/// domain's part of XenStore: `domain`, the number that the guest had when they were last written, and `port/N`.
///
/// When a guest restarts (`on_reboot=restart`), xl destroys its domain and makes another one of the configuration that
/// it has kept, with the same UUID: the controllers are there again, and their ports are empty, since libxl keeps only
/// devices that it has attached itself (libxl_usb.c, `libxl__device_usbdev_add_xenstore`). The broker restores the
/// ports when it first sees such a controller. Everything here happens in the caller's transaction.
struct RememberedPorts: Sendable {
    static let root = "xenback/usb"

    /// A guest that was missing for a whole interval is forgotten: a restart takes seconds.
    static let forgetInterval: Duration = .seconds(600)

    /// `xenback/usb/<UUID>/<controller>`; nil if we may not know the guest's UUID (in a driver domain).
    static func node(of path: DevicePath, _ store: any XenStoreOperations) throws(HypervisorFailure) -> String? {
        try guest(of: path.domain, store).map { "\(root)/\($0)/\(path.index)" }
    }

    /// The UUID, as the toolstack writes it: `/vm/<UUID>`.
    static func guest(of domain: DomainID, _ store: any XenStoreOperations) throws(HypervisorFailure) -> String? {
        guard let text = try store.read("\(domain.home)/vm"), let name = text.split(separator: "/").last,
            name.utf8.allSatisfy({ UInt8(ascii: "-") == $0 || Character(UnicodeScalar($0)).isHexDigit })
        else { return nil }
        return String(name)
    }

    /// A port was filled or, with an empty text, emptied.
    static func remember(
        _ text: String,
        in port: Int,
        of path: DevicePath,
        _ store: any XenStoreOperations
    ) throws(HypervisorFailure) {
        guard let node = try node(of: path, store) else { return }
        if text.isEmpty {
            try store.remove("\(node)/port/\(port)")
        } else {
            try store.write("\(node)/domain", "\(path.domain)")
            try store.write("\(node)/port/\(port)", text)
        }
    }

    /// The controller was recreated or is gone for good, with its ports.
    static func forget(_ path: DevicePath, _ store: any XenStoreOperations) throws(HypervisorFailure) {
        if let node = try node(of: path, store) { try store.remove(node) }
    }

    /// Fills the ports of a controller that a restart of its guest has recreated.
    /// - Parameter isNew: nobody has served the controller yet.
    /// - Returns: the ports that were filled.
    static func restore(
        _ path: DevicePath,
        isNew: Bool,
        _ store: any XenStoreOperations
    ) throws(HypervisorFailure) -> [(port: Int, text: String)] {
        guard let node = try node(of: path, store), let domain = try store.read("\(node)/domain") else { return [] }
        if domain == "\(path.domain)" {
            // The same guest, not restarted: a recreated controller has nothing to do with the one that is remembered.
            if isNew { try forgetEmptied(path, node, store) }
            return []
        }
        guard let count = try USBAssignments.portCount(of: path, store) else { return [] }
        let assignments = try USBAssignments.read(store)
        var filled: [(port: Int, text: String)] = []
        for port in try ports(node, store) where port <= count && assignments.text(in: port, of: path) == nil {
            guard let text = try store.read("\(node)/port/\(port)"), assignments.allows(text) else { continue }
            try store.write("\(path)/port/\(port)", text)
            filled.append((port, text))
        }
        try store.write("\(node)/domain", "\(path.domain)")
        return filled
    }

    private static func forgetEmptied(
        _ path: DevicePath,
        _ node: String,
        _ store: any XenStoreOperations
    ) throws(HypervisorFailure) {
        for port in try ports(node, store) where try store.read("\(path)/port/\(port)")?.isEmpty ?? true {
            try store.remove("\(node)/port/\(port)")
        }
    }

    private static func ports(_ node: String, _ store: any XenStoreOperations) throws(HypervisorFailure) -> [Int] {
        try (store.directory("\(node)/port") ?? []).compactMap { UInt32(decimal: $0).map { Int($0) } }.sorted()
    }

    /// Forgets the guests that are missing now and were missing the last time.
    /// - Parameter missing: those that were missing the last time.
    /// - Returns: those that are missing now.
    static func sweep(
        _ missing: Set<String>,
        _ store: any XenStoreOperations
    ) throws(HypervisorFailure) -> Set<String> {
        var now: Set<String> = []
        for guest in try store.directory(root) ?? [] {
            var isThere = false
            for index in try store.directory("\(root)/\(guest)") ?? [] where !isThere {
                guard let domain = try store.read("\(root)/\(guest)/\(index)/domain").flatMap({ DomainID(text: $0) })
                else { continue }
                isThere = try self.guest(of: domain, store) == guest
            }
            if isThere { continue }
            if missing.contains(guest) { try store.remove("\(root)/\(guest)") } else { now.insert(guest) }
        }
        return now
    }
}

extension USBAssignments {
    /// Whether a port may have this, regardless of the host's devices: a place can be assigned to one port only.
    func allows(_ text: String) -> Bool {
        guard let rule = try? USBDeviceRule(text) else { return false }
        return rule.address.map { holder(of: $0) == nil } ?? true
    }
}
