// The verb Hotplug.

public import XenWire

/// The toolstack's hotplug script ran for a device: `add` returns when the device is ready, or says why it is not.
public struct Hotplug: ControlVerb {
    public static let name = "Hotplug"
    public typealias Reply = NoParameters

    /// As in the script's environment (`XENBUS_PATH`): `backend/vbd3/7/51712`.
    public var path: String
    public var event: HotplugEvent

    public init(path: String, event: HotplugEvent) {
        self.path = path
        self.event = event
    }
}
