// What goes wrong with USB devices in more than one place.

package import HostIO

extension HostFailure {
    /// Nobody gets a hub: what is plugged in below it can be given away one by one.
    package static func hub(_ facts: USBDeviceFacts) -> HostFailure {
        HostFailure(.denied, "\(facts.address) is a hub; give away what is plugged in below it (\(facts.address).1 …)")
    }
}
