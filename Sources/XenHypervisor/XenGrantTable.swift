// The backend's half of grants: libxengnttab over /dev/xen/gntdev.

internal import CXen
internal import Glibc
internal import HostIO
public import Hypervisor
public import SharedRing
internal import Synchronization
internal import SystemPackage
public import XenWire

/// Grants mapped and copied.
///
/// The library has no state but the descriptor, so calls need no lock. When the process dies, however it dies, the
/// kernel unmaps everything; the frontend's grants stay its own.
public final class XenGrantTable: GrantTable {
    private let device: GrantDevice
    private let arrays = CopyArrays()

    /// - Throws: what could not be opened, and what to do about it.
    public init() throws(HypervisorFailure) { device = try GrantDevice() }

    public func map(
        _ references: [GrantReference],
        of domain: DomainID,
        access: GrantAccess
    ) throws(HypervisorFailure) -> SharedPages {
        let attempt = "map \(references.count) grants of domain \(domain)"
        guard !references.isEmpty, let count = UInt32(exactly: references.count) else {
            throw HypervisorFailure(attempt, .invalidArgument)
        }
        var numbers = references.map(\.rawValue)
        let protection = access == .readWrite ? PROT_READ | PROT_WRITE : PROT_READ
        // SAFETY: `numbers` holds `count` references; the library only reads them.
        let base = unsafe xengnttab_map_domain_grant_refs(
            device.handle,
            count,
            UInt32(domain.rawValue),
            &numbers,
            protection
        )
        guard let base = unsafe base else { throw HypervisorFailure(attempt, Errno(rawValue: errno)) }
        let mapping = unsafe GrantMapping(device: device, base: base, count: count)
        // SAFETY: mapped for `count` pages until `release`, which runs once, unmaps them.
        return unsafe SharedPages(base: base, byteCount: Int(count) * SharedPages.pageSize) { mapping.release() }
    }

    public func copy(_ batch: inout GrantCopyBatch, with domain: DomainID) throws(HypervisorFailure) {
        let array = arrays.take()
        defer { arrays.giveBack(array) }
        var start = 0
        while start < batch.count {
            let end = min(start + CopyArray.capacity, batch.count)
            for index in start..<end { array.set(index - start, batch[index], domain) }
            // SAFETY: the array holds end - start operations; their private ends are alive (GrantCopyBatch's promise).
            guard unsafe xengnttab_grant_copy(device.handle, UInt32(end - start), array.base) == 0 else {
                throw HypervisorFailure("copy \(end - start) grants of domain \(domain)", Errno(rawValue: errno))
            }
            for index in start..<end { batch.setStatus(array.status(index - start), of: index) }
            start = end
        }
    }
}

/// `/dev/xen/gntdev`, open until the last mapping made through it is gone.
@safe
private final class GrantDevice: @unchecked Sendable {
    // SAFETY: set once; the library's calls on it are system calls without shared state (tools/libs/gnttab/linux.c).
    let handle: OpaquePointer

    init() throws(HypervisorFailure) {
        guard let opened = unsafe HostDoor.enter(.grants, { unsafe xengnttab_open(XenLogger.quiet, 0) }) else {
            throw .opening("/dev/xen/gntdev", or: "load the kernel module xen-gntdev", Errno(rawValue: errno))
        }
        unsafe handle = opened
    }

    deinit { unsafe xengnttab_close(handle) }
}

/// One mapping, to be undone once.
@safe
private final class GrantMapping: @unchecked Sendable {
    private let device: GrantDevice
    // SAFETY: what the library returned for `count` pages; used for nothing but to unmap.
    private let base: UnsafeMutableRawPointer
    private let count: UInt32

    init(device: GrantDevice, base: UnsafeMutableRawPointer, count: UInt32) {
        self.device = device
        unsafe self.base = base
        self.count = count
    }

    func release() {
        let result = unsafe xengnttab_unmap(device.handle, base, count)
        // Only wrong arguments fail, and they came from the library.
        assert(result == 0, "unmap \(count) grants: \(Errno(rawValue: errno))")
    }
}

/// The operations of one call, in the kernel's layout, allocated once and used again and again.
@safe
private struct CopyArray: @unchecked Sendable {
    static let capacity = 256
    // SAFETY: `capacity` operations, owned by one caller at a time (CopyArrays).
    let base: UnsafeMutablePointer<xengnttab_grant_copy_segment_t>

    init() {
        unsafe base = .allocate(capacity: CopyArray.capacity)
        unsafe base.initialize(repeating: xengnttab_grant_copy_segment_t(), count: CopyArray.capacity)
    }

    func set(_ index: Int, _ copy: GrantCopy, _ domain: DomainID) {
        // SAFETY: index is below the capacity (the caller's loop), and each union is written as the flag will say.
        var foreign = unsafe xengnttab_copy_ptr()
        unsafe foreign.foreign.ref = copy.reference.rawValue
        unsafe foreign.foreign.offset = copy.pageOffset
        unsafe foreign.foreign.domid = domain.rawValue
        var own = unsafe xengnttab_copy_ptr()
        unsafe own.virt = copy.unsafeAddress
        unsafe base[index] = xengnttab_grant_copy_segment_t(
            source: copy.intoGrant ? own : foreign,
            dest: copy.intoGrant ? foreign : own,
            len: copy.byteCount,
            flags: UInt16(copy.intoGrant ? GNTCOPY_dest_gref : GNTCOPY_source_gref),
            status: GrantStatus.generalError.rawValue
        )
    }

    // The kernel tries again by itself while Xen says GNTST_eagain, and in the end makes GNTST_bad_page of it
    // (drivers/xen/grant-table.c, gnttab_retry_eagain_gop): there is nothing left for us to repeat.
    func status(_ index: Int) -> GrantStatus { unsafe GrantStatus(base[index].status) }
}

/// As many arrays as threads copy at the same time.
private final class CopyArrays: Sendable {
    private let free = Mutex<[CopyArray]>([])

    deinit {
        free.withLock { arrays in
            for array in arrays { unsafe array.base.deallocate() }
        }
    }

    func take() -> CopyArray { free.withLock { $0.popLast() } ?? CopyArray() }
    func giveBack(_ array: CopyArray) { free.withLock { $0.append(array) } }
}
