// Event channels: one set of ports with one descriptor that a loop waits on.

public import XenWire

/// A set of event channel ports whose events arrive at one descriptor (`/dev/xen/evtchn` opened once).
///
/// One loop owns a set and is its only caller, except for `notify`, which any thread may call.
public protocol EventChannels: AnyObject, Sendable {
    /// Becomes readable when a port is pending; for the owning loop's poll set.
    var descriptor: CInt { get }

    /// Connects to a port that `domain` allocated for us. The port starts unmasked.
    func bind(to port: EventChannelPort, of domain: DomainID) throws(HypervisorFailure) -> EventChannelPort

    /// Allocates a port for `domain` to bind to (the frontend's half).
    func allocate(for domain: DomainID) throws(HypervisorFailure) -> EventChannelPort

    /// Closes a port; the other end becomes unbound and may be bound again.
    func unbind(_ port: EventChannelPort)

    /// The next pending port, masked until `unmask`; nil if none is. Never blocks.
    func takePending() -> EventChannelPort?

    /// Lets a port fire again: after its work is done, not before (XSA-332).
    func unmask(_ port: EventChannelPort)

    /// Sends an event to the other end.
    func notify(_ port: EventChannelPort)
}
