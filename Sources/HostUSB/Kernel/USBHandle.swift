// libusb's handle of one device, and the calls on it that block.

internal import CUSB
internal import Glibc
internal import HostIO
internal import SystemPackage

/// A device's node, open and wrapped by a libusb context of its own.
///
/// The context looks for no devices and has no thread (`LIBUSB_OPTION_NO_DEVICE_DISCOVERY`); its only event sources besides
/// the node are an eventfd and a timerfd of its own, and the set of them does not change between `init` and `giveBack`.
@safe
final class USBHandle: @unchecked Sendable {
    // SAFETY: libusb locks its contexts and handles itself. `claimed`, `configuration`, `lock`, `file` and `isOpen` are touched by `init`, and
    // by the blocking calls, of which the owner makes one at a time; the pointers are valid until `giveBack`, which is the
    // last call of all.
    private let context: OpaquePointer
    private let handle: OpaquePointer
    private var lock: DeviceLock?
    private let probeGuard: ProbeGuard
    private var file: OpenFile?
    private var claimed: [UInt8] = []
    /// Of the interfaces that are claimed.
    private var configuration: UInt8?
    private var isOpen = true
    /// The node's descriptor, for polls.
    let descriptor: CInt
    let facts: USBDeviceFacts
    let descriptors: USBDescriptors

    /// - Throws: what libusb says.
    init(
        _ file: OpenFile,
        _ facts: USBDeviceFacts,
        _ descriptors: USBDescriptors,
        lock: DeviceLock,
        _ probeGuard: ProbeGuard
    ) throws(HostFailure) {
        self.probeGuard = probeGuard
        self.facts = facts
        self.descriptors = descriptors
        self.lock = lock
        self.file = file
        descriptor = file.descriptor
        usb_forbid_discovery()
        var context: OpaquePointer?
        var handle: OpaquePointer?
        // SAFETY: both are locals of this call.
        var code = unsafe libusb_init(&context)
        guard code == 0, let context = unsafe context else {
            throw USBHandle.failure("libusb cannot be used for \(facts.address)", code)
        }
        // SAFETY: the context was made above; the descriptor stays open as long as `file` is held.
        code = unsafe libusb_wrap_sys_device(context, Int(descriptor), &handle)
        guard code == 0, let handle = unsafe handle else {
            unsafe libusb_exit(context)
            throw USBHandle.failure("\(facts.address) cannot be used", code)
        }
        unsafe self.context = context
        unsafe self.handle = handle
    }

    /// For a device that is left as it is, to a successor.
    deinit {
        guard isOpen else { return }
        lock?.leave()
        close()
    }

    /// Claims all interfaces of a configuration, detaching the drivers that have them.
    ///
    /// A driver could bind again in between, since the kernel probes when the device arrives and udev loads drivers
    /// later: so detaching and claiming are one call (`USBDEVFS_DISCONNECT_CLAIM`).
    /// - Returns: 0 or libusb's code.
    func claim(_ configuration: UInt8?) -> CInt {
        self.configuration = configuration
        let interfaces = configuration.flatMap { descriptors.configuration($0) }?.interfaces ?? []
        unsafe libusb_set_auto_detach_kernel_driver(handle, 1)
        // With this on, a release would give the interface back to the kernel's drivers.
        defer { unsafe libusb_set_auto_detach_kernel_driver(handle, 0) }
        // New interfaces may be unauthorized, see `setConfiguration`; and a former owner may have died before
        // authorizing them.
        authorize()
        for interface in interfaces where !claimed.contains(interface) {
            let code = unsafe libusb_claim_interface(handle, CInt(interface))
            if code != 0 { return code }
            claimed.append(interface)
        }
        return 0
    }

    /// An unauthorized interface cannot be claimed either (drivers/usb/core/driver.c, `usb_driver_claim_interface`).
    private func authorize(_ isAuthorized: Bool = true) {
        for name in probeGuard.tree.interfaceNames(of: facts.address) {
            probeGuard.tree.authorize(interface: name, isAuthorized)
        }
    }

    private func release() {
        for interface in claimed { unsafe libusb_release_interface(handle, CInt(interface)) }
        claimed = []
    }

    /// SET_CONFIGURATION. The kernel refuses it while an interface is claimed (drivers/usb/core/devio.c,
    /// `proc_setconfig`). Interfaces of another configuration are new, and the host's drivers must not see them;
    /// setting the same configuration keeps them (`usb_reset_configuration`), and none is offered. If the device has no
    /// such configuration it keeps its present one.
    /// - Returns: 0 or libusb's code.
    func setConfiguration(_ value: UInt8) -> CInt {
        let makesInterfaces = value != 0 && value != configuration
        if makesInterfaces { return probeGuard.withoutDrivers(facts) { change(to: value) } }
        return change(to: value)
    }

    private func change(to value: UInt8) -> CInt {
        release()
        let code = unsafe libusb_set_configuration(handle, value == 0 ? -1 : CInt(value))
        if code != 0 {
            _ = claim(configuration)
            return code
        }
        return claim(value == 0 ? nil : value)
    }

    func setInterface(_ interface: UInt8, _ alternate: UInt8) -> CInt {
        unsafe libusb_set_interface_alt_setting(handle, CInt(interface), CInt(alternate))
    }

    func clearHalt(_ endpoint: UInt8) -> CInt { unsafe libusb_clear_halt(handle, endpoint) }

    /// libusb releases the interfaces before and claims them afterwards, since the kernel would give them to its
    /// drivers.
    func reset() -> CInt { unsafe libusb_reset_device(handle) }

    /// Undoes a claim that failed halfway. The last call.
    func abandon() {
        let interfaces = claimed
        release()
        if probeGuard.tree.withholdsInterfaces(ofBus: facts.busNumber) { authorize(false) }
        for interface in interfaces { unsafe libusb_attach_kernel_driver(handle, CInt(interface)) }
        close()
    }

    /// Returns the device to the kernel's drivers as it was found: reset, and in the configuration it had. The last
    /// call.
    ///
    /// It is reset before any driver is offered an interface: a guest may have left it in any state.
    func giveBack(isGone: Bool, configuration: UInt8?) {
        if !isGone {
            unsafe libusb_reset_device(handle)
            release()
            let own = lock?.hostConfiguration
            if configuration != own {
                probeGuard.withoutDrivers(facts) {
                    _ = unsafe libusb_set_configuration(handle, own.map { CInt($0) } ?? -1)
                }
            }
            offer(own)
        }
        close()
    }

    /// Offers the interfaces to the kernel's drivers, unless the administrator does that by hand on this bus.
    private func offer(_ configuration: UInt8?) {
        if probeGuard.tree.withholdsInterfaces(ofBus: facts.busNumber) { return authorize(false) }
        authorize()
        for interface in configuration.flatMap({ descriptors.configuration($0) })?.interfaces ?? [] {
            unsafe libusb_attach_kernel_driver(handle, CInt(interface))
        }
    }

    private func close() {
        isOpen = false
        unsafe libusb_close(handle)
        unsafe libusb_exit(context)
        file = nil
        lock = nil
    }

    /// A failure with libusb's name for the error.
    static func failure(_ what: String, _ code: CInt) -> HostFailure {
        // SAFETY: libusb returns constant, NUL-terminated strings for any number.
        let name = unsafe String(cString: libusb_error_name(code))
        let kind: HostFailure.Kind =
            switch code {
            case CInt(LIBUSB_ERROR_NO_DEVICE.rawValue), CInt(LIBUSB_ERROR_NOT_FOUND.rawValue): .notFound
            case CInt(LIBUSB_ERROR_BUSY.rawValue): .busy
            case CInt(LIBUSB_ERROR_ACCESS.rawValue): .denied
            default: .host
            }
        let reason = unsafe String(cString: libusb_strerror(code))
        return HostFailure(kind, "\(what): \(name) (\(reason))")
    }
}

// On the loop: nothing here blocks.
extension USBHandle {
    /// What must be watched so that `pump` is called in time.
    func sources() -> [(descriptor: CInt, events: UInt16)] {
        guard let list = unsafe libusb_get_pollfds(context) else { return [] }
        defer { unsafe libusb_free_pollfds(list) }
        var sources: [(descriptor: CInt, events: UInt16)] = []
        var index = 0
        // SAFETY: libusb ends the list with a null pointer, and it lives until it is freed above.
        while let entry = unsafe list[index] {
            unsafe sources.append((entry.pointee.fd, UInt16(bitPattern: entry.pointee.events)))
            index += 1
        }
        return sources
    }

    /// Lets libusb reap what has ended; it calls the transfers' callbacks from within.
    func pump() {
        var none = timeval()
        // SAFETY: a local of this call.
        _ = unsafe libusb_handle_events_timeout_completed(context, &none, nil)
    }

    /// Assigns a transfer to this device.
    @unsafe
    func adopt(_ transfer: UnsafeMutablePointer<libusb_transfer>) { unsafe transfer.pointee.dev_handle = handle }
}
