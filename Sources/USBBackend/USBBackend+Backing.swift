// The controller's ports: looked after from before state 2 until the device is gone, whether a frontend is there or not.

internal import BackendCore
internal import HostIO
internal import HostUSB
internal import Hypervisor
internal import Logging
internal import XenWire

extension USBBackend {
    /// Begins to look after the ports. A device that cannot be had is that port's matter, and no failure of this.
    func openBacking(isTakeover: Bool) async throws(BackendFailure) {
        guard let keys else { throw BackendFailure(.host, "no keys yet") }
        let shape = try keys.shape()
        let queue: USBQueue
        if let made = self.queue { queue = made } else { queue = try makeQueue(shape) }
        self.queue = queue
        self.shape = shape
        await queue.start(await readAssignments(shape))
    }

    private func makeQueue(_ shape: USBControllerShape) throws(BackendFailure) -> USBQueue {
        let facts = USBQueueFacts(
            path: path,
            shape: shape,
            host: host,
            grants: environment.hypervisor.grants,
            data: try environment.dataLoop(device: path.index, queue: 0),
            mark: mark
        )
        return try USBQueue(facts, log: FaultLog(sharing: life.log))
    }

    /// Gives all devices back to the host, unless a successor goes on with them.
    func closeBacking() async {
        guard let queue else { return }
        self.queue = nil
        if life.isDraining { await queue.leaveDevices() } else { await queue.stop() }
    }

    /// Nobody asks us by a script.
    var announcement: [(String, String)]? { nil }

    // MARK: ports

    func keysChanged() async {
        guard let queue, let shape else { return }
        await queue.assign(await readAssignments(shape))
    }

    /// What the toolstack assigned to each port, read as a whole: a watch carries no information.
    private func readAssignments(_ shape: USBControllerShape) async -> [String] {
        let names = shape.ports.map { USBKeys.port($0) }
        let values = await readKeys(names)
        return names.map { values[$0] ?? "" }
    }
}
