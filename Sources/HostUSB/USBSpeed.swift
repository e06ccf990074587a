// How fast a device of the host's bus is.

/// The speed that the host's controller found when it reset the device (USB 2.0, 7.1.7.5; USB 3.2, 3.1).
public enum USBSpeed: String, Hashable, Sendable, CaseIterable {
    /// 1.5 Mbit/s
    case low
    /// 12 Mbit/s
    case full
    /// 480 Mbit/s
    case high
    /// 5 Gbit/s and more
    case `super`
}
