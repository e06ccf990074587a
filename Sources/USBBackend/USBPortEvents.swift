// What the frontend has still to be told of its ports: bounded, because only the latest of each port counts.

internal import XenWire

/// The news of all ports. A frontend that posts no requests on its connection ring costs a few bytes per port, however
/// often devices come and go.
struct USBPortEvents: Sendable {
    private struct Port: Sendable {
        /// As the frontend believes.
        var told = USBIFSpeed.none
        /// As it is.
        var now = USBIFSpeed.none
        /// Another device than the one it was told of: without a `none` in between it would not see the change.
        var isReplaced = false

        var next: USBIFSpeed? {
            if isReplaced, told != .none { return USBIFSpeed.none }
            return told == now ? nil : now
        }
    }
    private var ports: [Port]
    /// Where to look first, so that a port that changes without end keeps no other from its turn.
    private var cursor = 0

    init(portCount: Int) { ports = Array(repeating: Port(), count: portCount) }

    /// A device is there; another one may have been before.
    mutating func plug(_ port: USBPort, _ speed: USBIFSpeed) {
        ports[port.index].isReplaced = true
        ports[port.index].now = speed
    }

    /// Nothing is there any more.
    mutating func unplug(_ port: USBPort) {
        ports[port.index].isReplaced = true
        ports[port.index].now = .none
    }

    /// The frontend was told so by a predecessor, and it still holds.
    mutating func restore(_ port: USBPort, _ speed: USBIFSpeed) {
        ports[port.index] = Port(told: speed, now: speed)
    }

    /// A new frontend knows of nothing.
    mutating func forget() {
        for index in ports.indices {
            ports[index].told = .none
            ports[index].isReplaced = false
        }
    }

    /// As the frontend believes.
    func told(_ port: USBPort) -> USBIFSpeed { ports[port.index].told }

    /// The next thing to say.
    func next() -> (port: USBPort, speed: USBIFSpeed)? {
        for step in 0..<ports.count {
            let index = (cursor &+ step) % ports.count
            if let speed = ports[index].next, let port = USBPort(index &+ 1) { return (port, speed) }
        }
        return nil
    }

    /// It was said.
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
