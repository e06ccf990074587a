// The frontend's half of grants: libxengntshr over /dev/xen/gntalloc.

internal import CXen
internal import Glibc
internal import HostIO
public import Hypervisor
internal import SharedRing
internal import Synchronization
internal import SystemPackage
public import XenWire

/// Own pages, granted. The device is opened at the first use: backends never need it.
///
/// The kernel's limit for all processes together is gntalloc's module parameter `limit` (1024 pages).
public final class XenGrantSharing: GrantSharing {
    private let device = Mutex<SharingDevice?>(nil)

    public init() {}

    public func share(
        pageCount: Int,
        with domain: DomainID,
        access: GrantAccess
    ) throws(HypervisorFailure) -> SharedGrant {
        let attempt = "grant \(pageCount) pages to domain \(domain)"
        guard pageCount > 0, let count = CInt(exactly: pageCount) else {
            throw HypervisorFailure(attempt, .invalidArgument)
        }
        let device = try opened()
        var numbers = [UInt32](repeating: 0, count: pageCount)
        // SAFETY: the library writes `count` references into `numbers`.
        let base = unsafe xengntshr_share_pages(
            device.handle,
            UInt32(domain.rawValue),
            count,
            &numbers,
            access == .readWrite ? 1 : 0
        )
        guard let base = unsafe base else { throw HypervisorFailure(attempt, Errno(rawValue: errno)) }
        let area = unsafe SharedArea(device: device, base: base, count: UInt32(count))
        // SAFETY: mapped for `pageCount` pages until `release`, which runs once, unmaps them.
        let pages = unsafe SharedPages(base: base, byteCount: pageCount * SharedPages.pageSize) { area.release() }
        // The kernel's pages are zero already (gntalloc allocates with __GFP_ZERO).
        return SharedGrant(references: numbers.map { GrantReference($0) }, pages: pages)
    }

    private func opened() throws(HypervisorFailure) -> SharingDevice {
        try device.withLock { (device) throws(HypervisorFailure) in
            if let device { return device }
            let opened = try SharingDevice()
            device = opened
            return opened
        }
    }
}

/// `/dev/xen/gntalloc`, open until the last page shared through it is gone.
@safe
private final class SharingDevice: @unchecked Sendable {
    // SAFETY: set once; the library's calls on it are system calls without shared state (tools/libs/gnttab/linux.c).
    let handle: OpaquePointer

    init() throws(HypervisorFailure) {
        guard let opened = unsafe HostDoor.enter(.ownGrants, { unsafe xengntshr_open(XenLogger.quiet, 0) }) else {
            throw .opening("/dev/xen/gntalloc", or: "load the kernel module xen-gntalloc", Errno(rawValue: errno))
        }
        unsafe handle = opened
    }

    deinit { unsafe xengntshr_close(handle) }
}

/// Pages to be taken back once.
@safe
private final class SharedArea: @unchecked Sendable {
    private let device: SharingDevice
    // SAFETY: what the library returned for `count` pages; used for nothing but to unmap.
    private let base: UnsafeMutableRawPointer
    private let count: UInt32

    init(device: SharingDevice, base: UnsafeMutableRawPointer, count: UInt32) {
        self.device = device
        unsafe self.base = base
        self.count = count
    }

    func release() { unsafe xengntshr_unshare(device.handle, base, count) }
}
