// Interfaces of network cards: their link outlives a worker, but they do not outlive their device.

internal import HostIO
internal import HostNetwork
internal import Hypervisor
internal import Logging
internal import XenWire

/// The interfaces that the broker keeps.
struct KeptInterfaces {
    /// The parked queues of connected devices; nil while one is being parked, or where that failed.
    var parked: [DevicePath: (any Sendable)?] = [:]
    /// A worker has ended, or a device has gone, since the last sweep; or there was none yet.
    var mustSweep = true
}

extension Broker {
    /// After each scan.
    func keepInterfaces() {
        guard let keeper = setting.interfaces else { return }
        let connected = Set(
            listing.devices.values.lazy
                .filter { $0.isOurs && $0.path.kind.hasInterface && $0.state == .connected }.map(\.path)
        )
        for path in interfaces.parked.keys where !connected.contains(path) {
            interfaces.parked[path] = nil
            interfaces.mustSweep = true
        }
        for path in connected where interfaces.parked[path] == nil { park(path, keeper) }
        if interfaces.mustSweep { sweep(keeper, connected) }
    }

    /// A worker that ended may have left an interface whose device has gone meanwhile.
    func workerEnded() {
        guard setting.interfaces != nil else { return }
        interfaces.mustSweep = true
        signal.raise()
    }

    private func park(_ path: DevicePath, _ keeper: any InterfaceKeeper) {
        interfaces.parked.updateValue(nil, forKey: path)
        Task(executorPreference: loop) {
            do throws(HostFailure) {
                let queue = try await self.loop.blocking { () throws(HostFailure) in
                    try keeper.park(path.interfaceOwner)
                }
                await self.parked(path, queue)
            } catch {
                self.log(of: path).warning("its link will not outlive its worker: \(error)")
            }
        }
    }

    private func parked(_ path: DevicePath, _ queue: any Sendable) {
        // nil: disconnected meanwhile.
        if interfaces.parked[path] != nil { interfaces.parked.updateValue(queue, forKey: path) }
    }

    /// Removes interfaces whose device is gone. While a worker runs, it looks after its domain's interfaces itself.
    private func sweep(_ keeper: any InterfaceKeeper, _ connected: Set<DevicePath>) {
        interfaces.mustSweep = false
        let kinds = classes.kinds
        let owners = Set(connected.map(\.interfaceOwner))
        Task(executorPreference: loop) {
            do throws(HostFailure) {
                let found = try await self.loop.blocking { () throws(HostFailure) in
                    keeper.forgetOthers(than: owners)
                    return try keeper.owners()
                }
                for path in found.compactMap({ DevicePath(interfaceOwner: $0) }) where kinds.contains(path.kind) {
                    await self.removeLeftover(path, keeper)
                }
            } catch {
                self.log.warning("cannot look for interfaces that are left over: \(error)")
            }
        }
    }

    private func removeLeftover(_ path: DevicePath, _ keeper: any InterfaceKeeper) async {
        guard listing.devices[path] == nil, workers[path.domain]?.process == nil, !isStopping else { return }
        do throws(HostFailure) {
            try await loop.blocking { () throws(HostFailure) in try keeper.remove(path.interfaceOwner) }
            log(of: path).notice("removed its interface: the device is gone")
        } catch {
            log(of: path).warning("its device is gone, but its interface cannot be removed: \(error)")
        }
    }
}
