// The broker's verbs: most go to the worker of the domain asked about; attaching and detaching are its own.

internal import BackendCore
internal import ControlProtocol
internal import HostIO
internal import Hypervisor
internal import XenWire

#if canImport(Glibc)
    internal import Glibc
#endif

extension Broker {
    /// A worker that starts right now is waited for this long.
    static let workerPatience: Duration = .seconds(30)
    static let askAgain: Duration = .milliseconds(20)

    /// The table of the control socket.
    nonisolated func dispatch() -> ControlDispatch {
        var dispatch = ControlDispatch(product: "xenbackd", version: Release.version, process: Int(getpid()))
        dispatch.on(List.self) { _ in List.Reply(devices: await self.list()) }
        dispatch.on(Show.self) { call throws(ControlError) in
            try await self.forward(call, to: call.domain, none: Show.Reply(reports: []))
        }
        dispatch.on(BlockList.self) { call throws(ControlError) in
            try await self.forward(call, to: call.domain, none: BlockList.Reply(disks: []))
        }
        dispatch.on(NetworkList.self) { call throws(ControlError) in
            try await self.forward(call, to: call.domain, none: NetworkList.Reply(cards: []))
        }
        dispatch.on(BlockResize.self) { call throws(ControlError) in try await self.forward(call, to: call.domain) }
        dispatch.on(MediaInsert.self) { call throws(ControlError) in try await self.forward(call, to: call.domain) }
        dispatch.on(MediaEject.self) { call throws(ControlError) in try await self.forward(call, to: call.domain) }
        dispatch.on(Hotplug.self) { call throws(ControlError) in
            guard let path = DevicePath(text: call.path) else { throw .invalidParameter("path") }
            try await self.hotplug(path, call.event)
            return Nothing()
        }
        dispatch.on(BlockAttach.self) { call throws(ControlError) in
            let disk = try await self.specification(call)
            try await self.toolstack.attach(disk)
            return BlockAttach.Reply(device: await self.shown(disk.path))
        }
        dispatch.on(BlockDetach.self) { call throws(ControlError) in
            let path = try await self.disk(call.device, of: try await self.domain(call.domain))
            try await self.toolstack.detach(path, force: call.force ?? false)
            return Nothing()
        }
        addUSBVerbs(to: &dispatch)
        return dispatch
    }

    nonisolated var toolstack: DeviceToolstack {
        DeviceToolstack(store: hypervisor.store, own: hypervisor.domains.own, loop: loop, log: log) {
            (path, event) throws(ControlError) in
            try await self.hotplug(path, event)
        }
    }

    // MARK: forwarding

    /// Gives a call to the domain's worker. One that is being replaced is waited for: what may be asked here can be
    /// asked twice, so that a worker's death in the middle is no error either.
    /// - Parameter none: the answer where the domain has no device of ours.
    private func forward<Verb: ControlVerb>(
        _ call: Verb,
        to text: String,
        none: Verb.Reply? = nil
    ) async throws(ControlError) -> Verb.Reply {
        let domain = try await domain(text)
        let deadline = ContinuousClock.now + Broker.workerPatience
        while let worker = workers[domain], worker.process != nil || worker.machine.expectsWorker {
            do throws(ControlError) {
                return try await WorkerCall.perform(call, at: setting.run.socket(of: domain), on: loop)
            } catch {
                guard case .workerUnavailable = error, ContinuousClock.now < deadline else { throw error }
            }
            await loop.sleep(for: Broker.askAgain)
        }
        if let none { return none }
        throw .workerUnavailable(reason: "domain \(domain) has no device of ours")
    }

    /// Gives the hotplug script's request to the device's worker, which may not be up yet.
    func hotplug(_ path: DevicePath, _ event: Hotplug.Event) async throws(ControlError) {
        let call = Hotplug(path: path.description, event: event)
        let deadline = ContinuousClock.now + Broker.workerPatience
        while true {
            do throws(ControlError) {
                _ = try await WorkerCall.perform(call, at: setting.run.socket(of: path.domain), on: loop)
                return
            } catch {
                switch (error, event) {
                // Nobody serves it any more: removed.
                case (.workerUnavailable, .remove), (.noSuchDevice, .remove): return
                case (.workerUnavailable, .add) where ContinuousClock.now < deadline: break
                default: throw error
                }
                await loop.sleep(for: Broker.askAgain)
            }
        }
    }

    // MARK: lists

    private func list() async -> [Device] {
        var devices: [Device] = []
        for domain in Set(workers.keys).union(listing.domains).sorted() {
            var served: [Device] = []
            if workers[domain]?.process != nil {
                let socket = setting.run.socket(of: domain)
                let reply = try? await WorkerCall.perform(List(), at: socket, on: loop, timeout: .seconds(5))
                served = reply?.devices ?? []
            }
            let known = Set(served.map(\.path))
            devices += served
            for device in listing.devices(of: domain) where !known.contains(device.path.description) {
                devices.append(await shown(device.path))
            }
        }
        return devices
    }

    /// A device as XenStore shows it, without its worker's word.
    func shown(_ path: DevicePath) async -> Device {
        let frontend = path.frontendKey("state")
        let values = try? await hypervisor.store.perform { (store) throws(HypervisorFailure) in
            (
                back: try store.read("\(path)/state"), front: try store.read(frontend),
                node: try store.read("\(path)/dev"), name: try store.read("/local/domain/\(path.domain)/name"),
                problem: try store.read(path.errorNode)
            )
        }
        var report = DeviceReport(path: path, phase: phase(path))
        report.backendState = values?.back.flatMap { XenbusState(text: $0) }
        report.frontendState = values?.front.flatMap { XenbusState(text: $0) }
        report.lastFailure = values?.problem
        let worker = workers[path.domain]?.process?.identifier
        return Device(report, DeviceContext(domainName: values?.name, node: values?.node, worker: worker))
    }

    private func phase(_ path: DevicePath) -> String {
        if excluded.contains(path) { return "closed after \(Strikes.limit) deaths of its backend" }
        return workers[path.domain]?.process == nil ? "waiting for a worker" : "served"
    }

    // MARK: names

    /// By number or name.
    func domain(_ text: String) async throws(ControlError) -> DomainID {
        let found = try? await hypervisor.store.perform { (store) throws(HypervisorFailure) in
            if let domain = DomainID(text: text) {
                return try store.directory("/local/domain/\(domain)") == nil ? nil : domain
            }
            for name in try store.directory("/local/domain") ?? [] {
                guard let domain = DomainID(text: name) else { continue }
                if try store.read("/local/domain/\(domain)/name") == text { return domain }
            }
            return nil
        }
        guard let domain = found ?? nil else { throw .noSuchDomain(text) }
        return domain
    }

    private func disk(_ text: String, of domain: DomainID) async throws(ControlError) -> DevicePath {
        var disks: [DeviceName] = []
        for path in listing.devices(of: domain).map(\.path) where path.kind.isDisk {
            disks.append(DeviceName(path, node: (try? await hypervisor.store.read("\(path)/dev")) ?? nil))
        }
        return try DeviceName.only(text, of: domain, among: disks)
    }
}
