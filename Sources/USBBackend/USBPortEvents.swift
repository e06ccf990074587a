// What the frontend has yet to be told about its ports: bounded, because only the latest state of each port counts.

internal import XenWire

/// The pending events of all ports. A frontend that posts no requests on its connection ring costs a few bytes per
/// port, however often devices come and go.
struct USBPortEvents: Sendable {
    private struct Port: Sendable {
        /// What the frontend was last told.
        var told = USBIFSpeed.none
        /// The actual state.
        var now = USBIFSpeed.none
        /// Another device than the one it was told about: without a `none` in between it would not notice the change.
        var isReplaced = false

        var next: USBIFSpeed? {
            if isReplaced, told != .none { return USBIFSpeed.none }
            return told == now ? nil : now
        }
    }
    private var ports: [Port]
    /// Where to look first, so that a port that keeps changing does not starve the others.
    private var cursor = 0

    init(portCount: Int) { ports = Array(repeating: Port(), count: portCount) }

    /// A device is there; it may have replaced another.
    mutating func plug(_ port: USBPort, _ speed: USBIFSpeed) {
        ports[port.index].isReplaced = true
        ports[port.index].now = speed
    }

    /// The port is empty now.
    mutating func unplug(_ port: USBPort) {
        ports[port.index].isReplaced = true
        ports[port.index].now = .none
    }

    /// A predecessor told the frontend so, and it is still true.
    mutating func restore(_ port: USBPort, _ speed: USBIFSpeed) {
        ports[port.index] = Port(told: speed, now: speed)
    }

    /// A new frontend has been told nothing.
    mutating func forget() {
        for index in ports.indices {
            ports[index].told = .none
            ports[index].isReplaced = false
        }
    }

    /// What the frontend was last told.
    func told(_ port: USBPort) -> USBIFSpeed { ports[port.index].told }

    /// The next event to report.
    func next() -> (port: USBPort, speed: USBIFSpeed)? {
        for step in 0..<ports.count {
            let index = (cursor &+ step) % ports.count
            if let speed = ports[index].next, let port = USBPort(index &+ 1) { return (port, speed) }
        }
        return nil
    }

    /// The event was reported.
    mutating func said(_ port: USBPort, _ speed: USBIFSpeed) {
        ports[port.index].told = speed
        if speed == .none {
            ports[port.index].isReplaced = false
        } else {
            cursor = (port.index &+ 1) % ports.count
        }
        if ports[port.index].told == ports[port.index].now { ports[port.index].isReplaced = false }
    }
}
