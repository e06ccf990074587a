// Names of the XenStore keys that every device class has.

/// Keys of the backend's and the frontend's half that are the same for all kinds (libxl, docs/misc/xenstore-paths.pandoc).
public enum BusKeys {
    /// Both halves: a `XenbusState`.
    public static let state = "state"
    /// Backend: 1 while the toolstack wants the device to exist; see `isOnline`.
    public static let online = "online"
    /// Backend: the frontend's path, written by the toolstack.
    public static let frontend = "frontend"
    /// Backend: the frontend's domid.
    public static let frontendID = "frontend-id"
    /// Frontend: the backend's path. The guest can change it.
    public static let backend = "backend"
    /// Frontend: the backend's domid.
    public static let backendID = "backend-id"
    /// Backend: the hotplug script the toolstack runs.
    public static let script = "script"
    /// Backend: `connected`, `error` or `busy`, from the hotplug script or from us on its behalf.
    public static let hotplugStatus = "hotplug-status"
    /// Backend: why the script failed; libxl shows it to the person at the keyboard.
    public static let hotplugError = "hotplug-error"
    /// Frontend: a ring's event channel port.
    public static let eventChannel = "event-channel"
    /// Backend: how many queues a frontend may have.
    public static let multiQueueMaxQueues = "multi-queue-max-queues"
    /// Frontend: how many queues it has; 1 … the backend's maximum.
    public static let multiQueueNumQueues = "multi-queue-num-queues"

    /// The meaning of `online`: nil is a missing node and means 0, as in Linux (xenbus_read_unsigned(…, "online", 0)).
    public static func isOnline(_ text: String?) -> Bool { text.flatMap { UInt32(decimal: $0) } ?? 0 != 0 }

    /// Frontend: the folder of queue `index`, where there is more than one.
    public static func queue(_ index: Int) -> String { "queue-\(index)" }
}
