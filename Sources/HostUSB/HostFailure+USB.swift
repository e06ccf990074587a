// What goes wrong with USB devices in more than one place.

package import HostIO

extension HostFailure {
    /// Hubs are never given away: what is plugged in below one can be given away device by device.
    package static func hub(_ facts: USBDeviceFacts) -> HostFailure {
        HostFailure(.denied, "\(facts.address) is a hub; give away what is plugged in below it (\(facts.address).1 …)")
    }
}
