// The controller's ports: managed from before state 2 until the device is gone, with or without a frontend.

internal import BackendCore
internal import HostIO
internal import HostUSB
internal import Hypervisor
internal import Logging
internal import XenWire

extension USBBackend {
    /// Starts managing the ports. A host device that cannot be had concerns its port only, and is no failure of this.
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

    /// Returns all devices to the host, unless a successor is to go on with them.
    func closeBacking() async {
        guard let queue else { return }
        self.queue = nil
        if life.isDraining { await queue.leaveDevices() } else { await queue.stop() }
    }

    /// There is no hotplug script.
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
