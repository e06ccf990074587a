// A Xen host as seen from the domain we run in: the five capabilities, opened together.

internal import CXen
internal import Glibc
internal import HostIO
public import Hypervisor
internal import SystemPackage
internal import XenWire

/// Xen through its user-space libraries and xenstored. One per process; safe to use from several threads.
public final class XenHypervisor: Hypervisor {
    public let domains: any DomainControl
    public let grants: any GrantTable
    public let sharing: any GrantSharing
    public let store: any XenStore
    public let interrupts: any GuestInterrupts

    /// Opens grants, event channels and XenStore, so that anything missing is reported now and by name.
    /// - Throws: what could not be opened and, in `operation`, what to do about it.
    public init() throws(HypervisorFailure) {
        grants = try XenGrantTable()
        sharing = XenGrantSharing()
        interrupts = XenGuestInterrupts()
        let store = try XenStoreClient()
        domains = XenDomainControl(store: store)
        self.store = store
    }

    public func openEventChannels() throws(HypervisorFailure) -> any EventChannels { try XenEventChannels() }
}

/// Keeps the libraries' messages off stderr; see `xen_quiet_logger`.
@safe
enum XenLogger {
    // SAFETY: never changed nor freed; the libraries lock around their writes to stderr.
    nonisolated(unsafe) static let quiet = unsafe xen_quiet_logger()
}

extension HypervisorFailure {
    /// Opening `device` failed: the advice depends on where we run.
    static func opening(_ device: String, or remedy: String, _ error: Errno) -> HypervisorFailure {
        let advice =
            if !runsOnXen {
                "this machine does not run on Xen"
            } else if geteuid() != 0 {
                "root is needed"
            } else {
                remedy
            }
        return HypervisorFailure("open \(device) (\(advice))", error)
    }

    private static var runsOnXen: Bool {
        (try? Files.contents(of: "/sys/hypervisor/type", limit: 64))?.starts(with: "xen".utf8) ?? false
    }
}
