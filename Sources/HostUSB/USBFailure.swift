// What went wrong on the host's side, and what to do about it.

public import HostIO

/// Something of the host's USB did not work.
public typealias USBFailure = HostFailure

extension USBFailure {
    /// Nobody gets a hub: what is plugged in below it can be given away one by one.
    package static func hub(_ facts: USBDeviceFacts) -> USBFailure {
        USBFailure(.denied, "\(facts.address) is a hub; give away what is plugged in below it (\(facts.address).1 …)")
    }
}
