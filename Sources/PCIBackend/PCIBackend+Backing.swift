// The guest's cards: taken before state 2, given back when the device is over.

internal import BackendCore
internal import HostIO
internal import HostPCI
internal import Hypervisor
internal import Logging
internal import XenWire

extension PCIBackend {
    /// Takes all cards that the toolstack lists. One that cannot be had fails alone, unless it is the only one.
    func openBacking(isTakeover: Bool) async throws(BackendFailure) {
        if !isTakeover { try await awaitKernel() }
        let queue = try makeQueue()
        let entries = try await readEntries()
        var refusal: BackendFailure?
        for entry in entries where entry.state != .closed {
            do throws(BackendFailure) {
                try await add(entry, to: queue, isTakeover: isTakeover)
            } catch {
                refusal = error
                await refuse(entry, error)
            }
        }
        if let refusal, await queue.places().isEmpty { throw refusal }
        await list(entries, queue)
        watchErrors()
        // Set only now: while it is nil, nobody else looks for cards.
        self.queue = queue
    }

    /// Two backends on one page would answer each other's operations, and our state 5 would close the kernel's device.
    /// So nothing is written while the kernel has the guest's buses.
    private func awaitKernel() async throws(BackendFailure) {
        let path = path
        try await wait(for: "the kernel's xen-pciback to let go") { () async throws(BackendFailure) in
            guard await environment.controlLoop.blocking({ KernelBackends().has(path) }) else { return }
            throw BackendFailure(
                .busy,
                "\(path): the kernel's xen-pciback has taken the guest's buses; keep it from probing by itself"
                    + " (echo 0 > /sys/bus/xen-backend/drivers_autoprobe): it is needed as the stub only"
            )
        }
    }

    private func makeQueue() throws(BackendFailure) -> PCIQueue {
        let facts = PCIQueueFacts(
            path: path,
            interrupts: environment.hypervisor.interrupts,
            data: try environment.ownLoop("pci-\(path.index)"),
            mark: mark
        )
        return try PCIQueue(facts, settings.mode, log: FaultLog(sharing: life.log))
    }

    /// Gives all cards back to the host, unless a successor goes on with them.
    func closeBacking() async {
        await reconfiguring?.value
        errorWatch?.end()
        errorWatch = nil
        guard let queue else { return }
        self.queue = nil
        failed = []
        published = []
        if life.isDraining { await queue.leaveCards() } else { await queue.removeAll() }
    }

    // MARK: errors of cards

    private func watchErrors() {
        do throws(HostFailure) {
            errorWatch = try host.watchErrors(on: environment.controlLoop) { [weak self] event in
                guard let self else { return }
                Task(executorPreference: self.environment.controlLoop) { await self.reported(event) }
            }
        } catch {
            life.log.failure("the guest will not hear of its cards' errors: \(error)")
        }
    }

    /// A card that failed for good does not end its guest unless the administrator said so: then `aerState` is written,
    /// and whoever watches it ends the guest.
    private func reported(_ event: PCIErrorEvent) async {
        guard let queue, await queue.reported(event) else { return }
        life.log.failure("\(event.address) reported an error: \(event.step.rawValue)")
        if event.step == .failed, settings.failsGuestOnError {
            await write([(PCIKeys.errorState, "aerfail")], "say that a card failed")
        }
    }

    /// There is no hotplug script.
    var announcement: [(String, String)]? { nil }

    // MARK: the toolstack's list

    /// Reads the list of cards as a whole.
    func readEntries() async throws(BackendFailure) -> [PCIDeviceEntry] {
        let path = path
        let values = await persist("read the list of cards") { (store) throws(HypervisorFailure) -> [String: String] in
            var values: [String: String] = [:]
            values[PCIKeys.count] = try store.read(path.key(PCIKeys.count))
            let count = values[PCIKeys.count].flatMap { UInt16(decimal: $0) } ?? 0
            for index in 0..<min(Int(count), PCIDeviceEntry.maxCount) {
                let names = [PCIKeys.device, PCIKeys.state, PCIKeys.options, PCIKeys.virtualDevice].map { $0(index) }
                for name in names { values[name] = try store.read(path.key(name)) }
            }
            return values
        }
        do throws(PCITextFault) { return try PCIDeviceEntry.list { values[$0] } } catch {
            throw BackendFailure(.invalid, "the list of cards: \(error)")
        }
    }

    /// Takes a card and gives it its place.
    func add(_ entry: PCIDeviceEntry, to queue: PCIQueue, isTakeover: Bool) async throws(BackendFailure) {
        if await queue.places().contains(where: { $0.host == entry.address }) { return }
        let card = try await take(entry, isTakeover: isTakeover)
        do throws(PCIBusFault) {
            let place = try await queue.add(card, published: entry.virtualAddress)
            life.say("\(entry.address) is \(place) in the guest")
        } catch {
            await queue.discard(card)
            throw BackendFailure(.invalid, "\(error)")
        }
        failed.removeAll { $0.host == "\(entry.address)" }
    }

    private func take(_ entry: PCIDeviceEntry, isTakeover: Bool) async throws(BackendFailure) -> PCIGuestCard {
        guard let address = PCIBusAddress("\(entry.address)") else {
            throw BackendFailure(.invalid, "\(entry.address) is no address of the host")
        }
        let (host, owner) = (host, path.relative)
        let limit: Duration? = isTakeover ? nil : settings.patience
        let card = try await wait(for: "\(address)", within: limit) { () async throws(BackendFailure) in
            let taken = try await hostCall("\(address)") {
                Result { () throws(HostFailure) in try host.take(address, owner: owner, isTakeover: isTakeover) }
            }
            do throws(HostFailure) { return try taken.get() } catch { throw BackendFailure(error) }
        }
        return PCIGuestCard(entry.address, entry.options, card, settings)
    }

    /// Leaves a card out; the guest's other cards go on.
    func refuse(_ entry: PCIDeviceEntry, _ failure: BackendFailure) async {
        life.log.failure("\(entry.address) cannot be given to domain \(path.domain): \(failure)")
        failed.removeAll { $0.host == "\(entry.address)" }
        failed.append(FunctionReport("\(entry.address)", .failed(failure.text)))
        let (node, text) = (path.errorNode, "1 \(failure.text)")
        await persist("write the error node") { (store) throws(HypervisorFailure) in try store.write(node, text) }
    }

    /// Collects what is to be published about these cards: whether each is there, and where.
    func list(_ entries: [PCIDeviceEntry], _ queue: PCIQueue) async {
        let places = await queue.places()
        var keys: [(String, String)] = []
        for entry in entries where entry.state == .initialising || entry.state == .initialised {
            if let place = places.first(where: { $0.host == entry.address })?.guest {
                keys.append((PCIKeys.virtualDevice(entry.index), place.virtualKey))
                keys.append((PCIKeys.state(entry.index), XenbusState.initialised.text))
            } else {
                keys.append((PCIKeys.state(entry.index), XenbusState.closed.text))
            }
        }
        let roots = await queue.roots
        for (index, root) in roots.enumerated() { keys.append((PCIKeys.root(index), "\(root)")) }
        keys.append((PCIKeys.rootCount, "\(roots.count)"))
        published = keys
    }
}
