// Crash attribution: which devices are suspected of a worker's death, and how often before they are closed for it.

/// A device's crash mark as the broker finds it after its worker's death (`DeviceCrashMark`).
struct CrashSuspect: Hashable, Sendable {
    var name: String
    /// Its code ran when the worker died.
    var busy: Bool
    /// It answered a request in this life.
    var progressed: Bool
    /// Crashes in a row that it was suspected of before this one.
    var crashes: UInt32
}

/// The rule by which a device is closed, so that it cannot take the others down for ever.
enum CrashAttribution {
    /// Crashes in a row after which a device is closed.
    static let limit: UInt32 = 3
    /// From this many on, a worker attaches the suspects one after the other: alone, only the guilty one is busy.
    static let staggerFrom: UInt32 = 2

    /// The crashes in a row that each device is suspected of after one more, in the order given.
    static func crashes(of devices: [CrashSuspect], life: WorkerLife) -> [UInt32] {
        devices.map { device in
            let before = device.progressed || life.duration >= RestartBackoff.window ? 0 : device.crashes
            return device.busy ? before &+ 1 : before
        }
    }
}
