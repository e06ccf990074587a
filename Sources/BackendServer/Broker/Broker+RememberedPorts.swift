// USB devices that a guest had before its restart are put back into its ports.

internal import BackendCore
internal import HostIO
internal import Hypervisor
internal import Logging
internal import XenWire

extension Broker {
    /// Fills the ports of controllers that are seen for the first time.
    func restorePorts() {
        let controllers = listing.devices.values.filter { $0.isOurs && $0.path.kind.isUSB && !$0.isOver }
        restored.formIntersection(controllers.map(\.path))
        for device in controllers where restored.insert(device.path).inserted {
            Task(executorPreference: loop) { await self.restorePorts(of: device) }
        }
    }

    private func restorePorts(of device: ListedDevice) async {
        let path = device.path
        do throws(HypervisorFailure) {
            let filled = try await hypervisor.store.transaction { (store) throws(HypervisorFailure) in
                try RememberedPorts.restore(path, isNew: device.isNew, store)
            }
            for (port, text) in filled {
                log(of: path).notice("port \(port) is assigned to \(text) again: its guest was restarted")
            }
        } catch {
            // The next scan tries again.
            restored.remove(path)
            log(of: path).warning("cannot restore the assignments of its ports: \(error)")
        }
    }

    /// Runs as long as the broker, and forgets guests that do not come back.
    func forgetGuests() async {
        var missing: Set<String> = []
        while !Task.isCancelled {
            missing = await swept(missing)
            await loop.sleep(for: RememberedPorts.forgetInterval)
        }
    }

    /// - Returns: the guests that are not there now.
    func swept(_ missing: Set<String>) async -> Set<String> {
        let result = try? await hypervisor.store.transaction { (store) throws(HypervisorFailure) in
            try RememberedPorts.sweep(missing, store)
        }
        return result ?? missing
    }
}
