// Discovery: scans of the backend directories, and what each domain needs according to them.

internal import BackendCore
internal import HostIO
internal import Hypervisor
internal import Logging
internal import XenWire

extension Broker {
    /// Watches what is not watched yet.
    func watch() async {
        let paths = kinds.map { "backend/\($0)" } + ["@releaseDomain"]
        for path in paths where watched.insert(path).inserted {
            await XenStoreTrouble.persist(loop, log) { () async throws(HypervisorFailure) in
                self.watches.append(try await self.hypervisor.store.watch(path, raising: self.signal))
            }
        }
    }

    /// Scans whenever something changed; any number of changes during a scan and its pause cause one more scan.
    func discover() async {
        var trouble = XenStoreTrouble()
        for await _ in signal.events {
            if isStopping { return }
            let begun = ContinuousClock.now
            do throws(HypervisorFailure) {
                let found = try await scan()
                apply(found)
                if let failure = found.failure { throw failure }
                trouble.reportOver(log)
            } catch {
                let (loop, signal, pause) = (loop, signal, trouble.report(error, log))
                Task(executorPreference: loop) {
                    await loop.sleep(for: pause)
                    signal.raise()
                }
            }
            await loop.sleep(for: XenStoreTrouble.rest(after: ContinuousClock.now - begun))
        }
    }

    /// Ours, and those we look at for the kernel's sake.
    private var kinds: [DeviceKind] {
        classes.kinds + kernelKinds.subtracting(classes.kinds).sorted { $0.rawValue < $1.rawValue }
    }

    private struct Scan: Sendable {
        var listing: DeviceListing
        /// No entry: unknown. nil: there is no such domain.
        var identities: [DomainID: DomainIdentity?] = [:]
        /// Why some are unknown.
        var failure: HypervisorFailure?
    }

    private func scan() async throws(HypervisorFailure) -> Scan {
        let (classes, kinds, own, domains) = (classes, kinds, hypervisor.domains.own, hypervisor.domains)
        let listing = try await hypervisor.store.perform { (store) throws(HypervisorFailure) in
            try DeviceListing.read(store, kinds: kinds, classes: classes, own: own)
        }
        let all = listing.domains.union(workers.keys)
        // A hypercall or two per domain: not on the loop.
        return await loop.blocking {
            var scan = Scan(listing: listing)
            for domain in all {
                do throws(HypervisorFailure) {
                    scan.identities.updateValue(try domains.identity(of: domain), forKey: domain)
                } catch {
                    scan.failure = error
                }
            }
            return scan
        }
    }

    private func apply(_ found: Scan) {
        let isFirst = !hasScanned
        hasScanned = true
        listing = found.listing
        pardon()
        giveToKernel()
        for (domain, identity) in found.identities.sorted(by: { $0.key < $1.key }) where !isStopping {
            supervise(domain, .seen(demand(of: domain), identity: identity))
        }
        // Only now is it known which workers have a successor.
        if isFirst { recoverUSB() }
        for (domain, identity) in found.identities { removeLeftBehind(domain, isGone: identity == nil) }
        restorePorts()
        if !isStopping { keepInterfaces() }
    }

    /// Reads the devices now, independently of the scans.
    func scanned() async throws(HypervisorFailure) -> DeviceListing { try await scan().listing }

    func demand(of domain: DomainID) -> Demand {
        let devices = listing.devices(of: domain).filter { !$0.isOver }
        if devices.isEmpty { return .nothing }
        return devices.allSatisfy { excluded.contains($0.path) } ? .closedDevices : .worker
    }

    /// A device that is gone, or was recreated by the toolstack, is no longer excluded.
    private func pardon() {
        for path in excluded where listing.devices[path]?.isNew ?? true {
            excluded.remove(path)
            let marks = try? CrashMarks(setting.run.marks(of: path.domain))
            marks?.inUse.first { $0.name == path.nameInDomain }?.pardon()
        }
    }

    // MARK: devices without a worker

    /// Closes a device that nobody serves any more, with the reason where the toolstack looks for it.
    func close(_ path: DevicePath, because text: String) async {
        do throws(HypervisorFailure) {
            try await hypervisor.store.transaction { (store) throws(HypervisorFailure) in
                guard try store.read("\(path)/state") != nil else { return }
                try store.write(path.errorNode, "1 \(text)")
                try store.write("\(path)/state", XenbusState.closed.text)
            }
        } catch {
            log(of: path).error("cannot close it in XenStore: \(error)")
        }
    }

    /// The toolstack waits for state 6 of a dead domain's devices; their worker died with the domain.
    ///
    /// The listing may be stale: devices of another domain that has this number by now are left alone.
    @discardableResult
    func closeAbandoned(_ domain: DomainID) -> Task<Void, Never> {
        let paths = listing.devices(of: domain).filter { $0.state != .closed }.map(\.path)
        return Task(executorPreference: loop) {
            for path in paths {
                guard await self.isGone(domain) else { return }
                self.log(of: path).notice("closed: its domain is gone")
                await self.close(path, because: "the domain is gone")
            }
        }
    }

    /// Asked again now; false also if it is unknown: a later scan closes what is to be closed.
    private func isGone(_ domain: DomainID) async -> Bool {
        let domains = hypervisor.domains
        do throws(HypervisorFailure) {
            return try await loop.blocking { () throws(HypervisorFailure) in try domains.identity(of: domain) } == nil
        } catch {
            await loop.sleep(for: .seconds(1))
            signal.raise()
            return false
        }
    }

    nonisolated func log(of path: DevicePath) -> Logger {
        var log = log(of: path.domain)
        log[metadataKey: "device"] = "\(path)"
        return log
    }
}
