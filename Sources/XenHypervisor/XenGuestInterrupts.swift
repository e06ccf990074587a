// Interrupts for guests: physdev hypercalls over libxencall.

internal import CXen
internal import Glibc
internal import HostIO
public import Hypervisor
internal import Synchronization
internal import SystemPackage
public import XenWire

/// Maps interrupts as dom0's kernel does for its own pciback (Linux, arch/x86/pci/xen.c, `xen_initdom_setup_msi_irqs`).
///
/// The library is opened at the first call: only workers of guests with cards need it, and only domain 0 may use it.
public final class XenGuestInterrupts: GuestInterrupts {
    private let calls = Mutex<HypercallDevice?>(nil)

    public init() {}

    public func map(
        _ message: MessageInterrupt,
        for domain: DomainID
    ) throws(HypervisorFailure) -> PhysicalInterrupt {
        var request = physdev_map_pirq()
        request.domid = domain.rawValue
        // With the segment in the upper half of `bus`. The index says that Xen is to make an interrupt of its own, the
        // pirq that it is to choose the domain's number for it.
        request.type = MAP_PIRQ_TYPE_MSI_SEG
        request.index = -1
        request.pirq = -1
        request.bus = CInt(bitPattern: UInt32(message.card.segment) << 16 | UInt32(message.card.bus))
        request.devfn = CInt(message.card.deviceFunction)
        if let row = message.row {
            request.entry_nr = CInt(row.entry)
            request.table_base = row.tableBase
        }
        let what =
            "map \(message.row.map { "row \($0.entry) of MSI-X" } ?? "MSI") of \(message.card) for domain \(domain)"
        try call(PHYSDEVOP_map_pirq, &request, what)
        guard let number = UInt32(exactly: request.pirq) else { throw HypervisorFailure(what, .invalidArgument) }
        return PhysicalInterrupt(number)
    }

    public func unmap(_ interrupt: PhysicalInterrupt, of domain: DomainID) throws(HypervisorFailure) {
        var request = physdev_unmap_pirq()
        request.domid = domain.rawValue
        request.pirq = CInt(truncatingIfNeeded: interrupt.rawValue)
        try call(PHYSDEVOP_unmap_pirq, &request, "unmap interrupt \(interrupt.rawValue) of domain \(domain)")
    }

    private func call<Argument>(
        _ operation: CInt,
        _ argument: inout Argument,
        _ what: String
    ) throws(HypervisorFailure) {
        try calls.withLock { (device: inout HypercallDevice?) throws(HypervisorFailure) in
            let opened: HypercallDevice
            if let device { opened = device } else { opened = try HypercallDevice() }
            device = opened
            let status = unsafe opened.physdev(operation, &argument)
            if status != 0 { throw HypervisorFailure(what, Errno(rawValue: status)) }
        }
    }
}

/// libxencall, open, with a page that Xen can read and write.
@safe
private final class HypercallDevice: @unchecked Sendable {
    // SAFETY: set once; used under the one lock of `XenGuestInterrupts`.
    private let handle: OpaquePointer
    private let page: UnsafeMutableRawPointer

    init() throws(HypervisorFailure) {
        guard let opened = unsafe HostDoor.enter(.hypercalls, { unsafe xencall_open(XenLogger.quiet, 0) }) else {
            throw .opening("/dev/xen/hypercall", or: "load the kernel module xen-privcmd", Errno(rawValue: errno))
        }
        guard let allocated = unsafe xencall_alloc_buffer_pages(opened, 1) else {
            let error = Errno(rawValue: errno)
            unsafe xencall_close(opened)
            throw HypervisorFailure("allocate memory for hypercalls", error)
        }
        unsafe (handle, page) = (opened, allocated)
    }

    deinit {
        unsafe xencall_free_buffer_pages(handle, page, 1)
        unsafe xencall_close(handle)
    }

    /// - Returns: 0 or the error's number.
    @unsafe
    func physdev<Argument>(_ operation: CInt, _ argument: inout Argument) -> CInt {
        // SAFETY: a structure of public/physdev.h, which has no pointers and fits into the page; Xen writes no more than
        // it read.
        unsafe page.storeBytes(of: argument, as: Argument.self)
        let result = unsafe xencall2(
            handle,
            UInt32(__HYPERVISOR_physdev_op),
            UInt64(bitPattern: Int64(operation)),
            UInt64(UInt(bitPattern: page))
        )
        let status = result < 0 ? errno : 0
        unsafe argument = page.load(as: Argument.self)
        return status
    }
}
