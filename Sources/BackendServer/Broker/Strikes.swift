// Three strikes: which devices are to blame for a worker's death, and which of them are closed for it.

/// A device's mark as the broker finds it after its worker's death (BackendCore/DeviceMark).
struct MarkedDevice: Hashable, Sendable {
    var name: String
    /// Its code ran when the worker died.
    var busy: Bool
    /// It answered a request in this life.
    var progressed: Bool
    /// Deaths in a row that it was suspected of before this one.
    var strikes: UInt32
}

/// The rule by which a device loses its place, so that it cannot take the others down for ever.
enum Strikes {
    static let limit: UInt32 = 3
    /// From this many on, a worker attaches the suspects one after the other: alone, only the guilty one is busy.
    static let staggerFrom: UInt32 = 2

    /// The strikes of each device after a death, in the order given.
    static func afterDeath(_ devices: [MarkedDevice], life: WorkerLife) -> [UInt32] {
        devices.map { device in
            let before = device.progressed || life.duration >= RestartBackoff.window ? 0 : device.strikes
            return device.busy ? before &+ 1 : before
        }
    }
}
