// Cards that come and go: while the guest is built, and while it runs, with states 7 and 8.

internal import BackendCore
internal import HostIO
internal import HostPCI
internal import Hypervisor
internal import Logging
internal import XenWire

/// The order of a change in a running guest (Linux, xen-pciback's `xen_pcibk_reconfigure`, xen-pcifront's
/// `pcifront_detach_devices` and `pcifront_attach_devices`; libxl_pci.c): the toolstack marks cards to come with `state-N` 1 and
/// those to go with 5, and writes our state 7; the guest lets go of what is to go and writes 7; we take and give back, and
/// write 8; the guest looks for what has come and writes 4; so do we.
extension PCIBackend {
    func keysChanged() async {
        guard reconfiguring == nil, let queue, let snapshot = life.snapshot, !life.isDraining else { return }
        switch (snapshot.backend, snapshot.frontend) {
        case (.initWait, _) where connection == nil: await look(queue, in: .initWait)
        // A guest with a device model has no pcifront, and nobody answers a 7.
        case (.reconfiguring, .initialising): await look(queue, in: .reconfiguring)
        case (.reconfiguring, .reconfiguring) where connection != nil:
            start { await self.absorb(queue, in: .reconfiguring, next: .reconfigured) }
        case (.reconfigured, .connected) where connection != nil:
            await move(from: .reconfigured, to: .connected, [])
        default: break
        }
    }

    /// Without a frontend: a guest is built card by card, and libxl does not write 7 then.
    private func look(_ queue: PCIQueue, in state: XenbusState) async {
        guard let entries = try? await readEntries() else { return }
        let held = await queue.places().map(\.host)
        let isNew = entries.contains { $0.state == .initialising && !held.contains($0.address) }
        let isGone = held.contains { host in !entries.contains { $0.address == host && $0.state != .closing } }
        guard isNew || isGone || state != .initWait else { return }
        start { await self.absorb(queue, in: state, next: .initWait) }
    }

    /// Runs beside the shell: a card can take its time, and changes of state must be heard meanwhile.
    private func start(_ work: @escaping @Sendable () async -> Void) {
        reconfiguring = Task(executorPreference: environment.controlLoop) {
            await work()
            await self.ended()
        }
    }

    private func ended() {
        reconfiguring = nil
        // What has changed meanwhile has not been looked at yet.
        signal.raise()
    }

    /// Gives back what is to go, takes what is to come, and publishes both.
    private func absorb(_ queue: PCIQueue, in state: XenbusState, next: XenbusState) async {
        let entries: [PCIDeviceEntry]
        do throws(BackendFailure) { entries = try await readEntries() } catch {
            life.log.failure(error.text)
            // The guest waits for an answer, and all its cards are still there.
            return await move(from: state, to: next, [])
        }
        let staying = entries.filter { $0.state != .closing }.map(\.address)
        for place in await queue.places() where !staying.contains(place.host) {
            await queue.remove(place.host)
            life.say("\(place.host) was taken from the guest")
        }
        failed.removeAll { failed in !staying.contains { "\($0)" == failed.host } }
        for entry in entries where entry.state == .initialising {
            do throws(BackendFailure) { try await add(entry, to: queue, isTakeover: false) } catch {
                await refuse(entry, error)
            }
        }
        await list(entries, queue)
        await move(from: state, to: next, published)
    }

    /// Writes keys and our state, unless somebody else has changed the state meanwhile: the toolstack's word is newer
    /// than ours.
    private func move(from old: XenbusState, to new: XenbusState, _ keys: [(String, String)]) async {
        let path = path
        await persist("publish state \(new)", isTransaction: true) { (store) throws(HypervisorFailure) in
            guard try store.read(path.key(BusKeys.state)) == old.text else { return }
            for (name, value) in keys { try store.write(path.key(name), value) }
            if new != old { try store.write(path.key(BusKeys.state), new.text) }
        }
        if new != old { life.say("state \(new)") }
    }
}
