// Removing devices whose domain is gone: their whole directories, after the toolstack has removed its own.

internal import BackendCore
internal import HostIO
internal import Hypervisor
internal import Logging
internal import XenWire

extension Broker {
    /// Removes closed backend directories that the toolstack has left behind.
    ///
    /// libxl leaves them if it gives up halfway: when it is killed, or at a USB controller with a rule in a port, for
    /// which it finds no device (libxl_usb.c, `libxl__device_usbdev_list_for_usbctrl`). A running xl reads a domain's
    /// nodes one by one and expects each to exist, so nothing is removed while it may be reading: not before
    /// `/local/domain/N` and then `/libxl/N` are gone, which libxl removes last (libxl_domain.c, `devices_destroy_cb`).
    ///
    /// A driver domain cannot see `/libxl`; there the toolstack waits for the directory to vanish, and then destroys
    /// the domain. So the directory of a closed device is removed although the domain still exists, as it does for as
    /// long as anybody maps its pages. A worker does that for its devices; without one it is done here.
    func removeLeftBehind(_ domain: DomainID, isGone: Bool) {
        let isLeft = isDriverDomain && workers[domain]?.process == nil
        let closed = listing.devices(of: domain)
            .filter { $0.state == .closed && (isGone || isLeft && $0.isOver) }
            .map(\.path)
        guard !closed.isEmpty, removing.insert(domain).inserted else { return endWait(for: domain, unless: closed) }
        Task(executorPreference: loop) { await self.tryToRemove(closed, of: domain, isGone: isGone) }
    }

    private var isDriverDomain: Bool { hypervisor.domains.own != .initial }

    private func tryToRemove(_ paths: [DevicePath], of domain: DomainID, isGone: Bool) async {
        let isDone = await remove(paths, of: domain, isGone: isGone)
        removing.remove(domain)
        if isDone { endWait(for: domain, unless: []) } else { await waitForToolstack(domain) }
    }

    /// - Returns: false if the toolstack is not done yet.
    private func remove(_ paths: [DevicePath], of domain: DomainID, isGone: Bool) async -> Bool {
        let isDriverDomain = isDriverDomain
        do throws(HypervisorFailure) {
            let removed: [DevicePath]? = try await hypervisor.store.transaction { (store) throws(HypervisorFailure) in
                if !isDriverDomain {
                    guard try store.directory("/local/domain/\(domain)") == nil,
                        try store.directory("/libxl/\(domain)") == nil
                    else { return nil }
                }
                var removed: [DevicePath] = []
                for path in paths where try store.read(path.key(BusKeys.state)) == XenbusState.closed.text {
                    if !isGone, BusKeys.isOnline(try store.read(path.key(BusKeys.online))) { continue }
                    try store.remove("\(path)")
                    removed.append(path)
                    let parent = "backend/\(path.kind)/\(domain)"
                    // A driver domain does not own the parent.
                    if !isDriverDomain, try store.directory(parent)?.isEmpty ?? false { try store.remove(parent) }
                }
                return removed
            }
            for path in removed ?? [] { log(of: path).notice("removed: nobody needs it any more") }
            return removed != nil
        } catch {
            // The next scan tries again.
            log(of: domain).warning("cannot remove the nodes of its devices: \(error)")
            return true
        }
    }

    /// Scans again when the toolstack removes what it has of the domain.
    private func waitForToolstack(_ domain: DomainID) async {
        guard toolstackWaits[domain] == nil else { return }
        guard let watch = try? await hypervisor.store.watch("/libxl/\(domain)", raising: signal) else { return }
        if let old = toolstackWaits.updateValue(watch, forKey: domain) { await old.cancel() }
    }

    private func endWait(for domain: DomainID, unless paths: [DevicePath]) {
        guard paths.isEmpty, let watch = toolstackWaits.removeValue(forKey: domain) else { return }
        Task(executorPreference: loop) { await watch.cancel() }
    }
}
