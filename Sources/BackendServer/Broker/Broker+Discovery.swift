// The broker's eyes: scans of the backend directories, and what they say each domain needs.

internal import BackendCore
internal import HostIO
internal import Hypervisor
internal import Logging
internal import XenWire

extension Broker {
    /// At least this long from one scan to the next; four times as long as a scan took, if that is more: a host with
    /// thousands of devices spends a fifth of its time on them at the worst.
    static let scanPause: Duration = .milliseconds(20)

    /// Watches what is not watched yet.
    func watch() async {
        let paths = kinds.map { "backend/\($0)" } + ["@releaseDomain"]
        for path in paths where watched.insert(path).inserted {
            await XenStoreTrouble.persist(loop, log) { () async throws(HypervisorFailure) in
                self.watches.append(try await self.hypervisor.store.watch(path, raising: self.signal))
            }
        }
    }

    /// Scans whenever something changed; any number of changes during a scan and its pause are one more scan.
    func discover() async {
        var trouble = XenStoreTrouble()
        for await _ in signal.events {
            if isStopping && workers.isEmpty { break }
            if isStopping { continue }
            let begun = ContinuousClock.now
            do throws(HypervisorFailure) {
                let found = try await scan()
                trouble.over(log)
                apply(found.listing, found.identities)
            } catch {
                trouble.report(error, log)
                let (loop, signal, pause) = (loop, signal, trouble.pause)
                Task(executorPreference: loop) {
                    await loop.sleep(for: pause)
                    signal.raise()
                }
            }
            await loop.sleep(for: max(Broker.scanPause, (ContinuousClock.now - begun) * 4))
        }
        for watch in watches { await watch.cancel() }
    }

    /// Ours, and those we look at for the kernel's sake.
    private var kinds: [DeviceKind] {
        classes.kinds + (bindsForeignDisks && !classes.kinds.contains(.vbd) ? [.vbd] : [])
    }

    private typealias Scan = (listing: DeviceListing, identities: [DomainID: DomainIdentity])

    private func scan() async throws(HypervisorFailure) -> Scan {
        let (classes, kinds, own, domains) = (classes, kinds, hypervisor.domains.own, hypervisor.domains)
        let listing = try await hypervisor.store.perform { (store) throws(HypervisorFailure) in
            try DeviceListing.read(store, kinds: kinds, classes: classes, own: own)
        }
        let all = listing.domains.union(workers.keys)
        // A hypercall or two for each domain: not on the loop.
        let identities = await loop.blocking { () -> Result<[DomainID: DomainIdentity], HypervisorFailure> in
            var identities: [DomainID: DomainIdentity] = [:]
            do throws(HypervisorFailure) {
                for domain in all { identities[domain] = try domains.identity(of: domain) }
                return .success(identities)
            } catch {
                return .failure(error)
            }
        }
        return (listing, try identities.get())
    }

    private func apply(_ found: DeviceListing, _ identities: [DomainID: DomainIdentity]) {
        listing = found
        pardon()
        bindForeignDisks()
        for domain in found.domains.union(workers.keys).sorted() where !isStopping {
            supervise(domain, .seen(demand(of: domain), identity: identities[domain]))
        }
    }

    func demand(of domain: DomainID) -> Demand {
        let devices = listing.devices(of: domain).filter { !$0.isOver }
        if devices.isEmpty { return .nothing }
        return devices.allSatisfy { excluded.contains($0.path) } ? .closedDevices : .worker
    }

    /// An excluded device that is gone, or made anew by the toolstack, is not excluded any more.
    private func pardon() {
        for path in excluded where listing.devices[path]?.isNew ?? true {
            excluded.remove(path)
            let marks = try? DeviceMarks(setting.run.marks(of: path.domain))
            marks?.inUse.first { $0.name == path.nameInDomain }?.pardon()
        }
    }

    // MARK: devices without a worker

    /// Ends a device that nobody serves any more, with the reason where the toolstack looks for it.
    func close(_ path: DevicePath, because text: String) async {
        do throws(HypervisorFailure) {
            try await hypervisor.store.transaction { (store) throws(HypervisorFailure) in
                guard try store.read("\(path)/state") != nil else { return }
                try store.write("error/\(path)/error", text)
                try store.write("\(path)/state", XenbusState.closed.text)
            }
        } catch {
            log(of: path).error("cannot close it in XenStore: \(error)")
        }
    }

    /// The toolstack waits for state 6 of a dead domain's devices; their worker died with the domain.
    func closeAbandoned(_ domain: DomainID) {
        let paths = listing.devices(of: domain).filter { $0.state != .closed }.map(\.path)
        guard !paths.isEmpty else { return }
        Task(executorPreference: loop) {
            for path in paths {
                self.log(of: path).notice("closed: its domain is gone")
                await self.close(path, because: "the domain is gone")
            }
        }
    }

    nonisolated func log(of path: DevicePath) -> Logger {
        var log = log(of: path.domain)
        log[metadataKey: "device"] = "\(path)"
        return log
    }
}
