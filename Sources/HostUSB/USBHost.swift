// The host's buses: which devices there are, and how to have one.

public import HostIO

/// The USB devices of a host, real or simulated.
public protocol USBHost: AnyObject, Sendable {
    /// All devices that are plugged in, hubs included, root hubs not, in the order of their addresses. May block for a
    /// while: off the loops.
    func devices() throws(HostFailure) -> [USBDeviceFacts]

    /// Calls `changed` on the loop whenever devices have arrived, gone or changed since the last call: list them then.
    ///
    /// Many changes at once are one call, and a call may come without a change. Devices that were there before are not
    /// reported. An arrival is reported once the host has processed it, that is, applied its rules.
    func watch(on loop: EventLoop, _ changed: @escaping @Sendable () -> Void) throws(HostFailure) -> any USBWatch

    /// Opens a device for one owner: all its interfaces are detached from the kernel's drivers and claimed.
    ///
    /// May block for a while: off the loops. The device does nothing before `begin`.
    /// - Parameters:
    ///   - facts: the device as `devices()` listed it; another one that is plugged in there by now is not taken.
    ///   - owner: who has it, for the message that others get: `backend/vusb/7/0 port 2`.
    ///   - loop: where the device will be used, only there.
    /// - Throws: `.notFound` if it is gone, `.busy` naming who has it, `.denied` for a hub, `.host` for what the kernel
    ///   says.
    func open(_ facts: USBDeviceFacts, owner: String, on loop: EventLoop) throws(HostFailure) -> any OpenUSBDevice

    /// Completes what dead owners left half done, and returns devices to the host that no successor will take over. May
    /// block for a while: off the loops.
    /// - Parameter goesOn: whether an owner of that name (as in `open`) has a successor, which will open the device.
    /// - Returns: what was done, for the log.
    func recover(_ goesOn: @Sendable (String) -> Bool) -> [String]
}

extension USBHost {
    /// For a host whose devices are free as soon as their owner is dead.
    public func recover(_ goesOn: @Sendable (String) -> Bool) -> [String] { [] }
}

/// A watch of a host's devices, on until it is ended.
public protocol USBWatch: AnyObject, Sendable {
    /// Called on the watch's loop; `changed` is not called any more.
    func end()
}
