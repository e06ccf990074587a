// The worker's verbs: what its devices report and do for people and for the hotplug script.

internal import BackendCore
internal import BlockBackend
internal import ControlProtocol
internal import HostIO
internal import Hypervisor
internal import XenWire

#if canImport(Glibc)
    internal import Glibc
#endif

extension Worker {
    /// A hotplug request may come before the scan that finds its device.
    static let hotplugPatience: Duration = .seconds(5)

    /// The table of this worker's control socket.
    nonisolated func dispatch() -> ControlDispatch {
        var dispatch = ControlDispatch(
            product: "xenbackd worker \(environment.domain)",
            version: Release.version,
            process: Int(getpid())
        )
        dispatch.on(List.self) { _ in
            List.Reply(devices: await self.reports { _ in true }.map { Device($0.report, $0.context) })
        }
        dispatch.on(Show.self) { call throws(ControlError) in
            let path: DevicePath?
            if let device = call.device { path = try await self.selected(device).path } else { path = nil }
            let reports = await self.reports { path == nil || $0 == path }
            return Show.Reply(reports: reports.map { Report($0.report, $0.context) })
        }
        dispatch.on(BlockList.self) { _ in BlockList.Reply(disks: await self.disks()) }
        dispatch.on(NetworkList.self) { _ in NetworkList.Reply(cards: await self.cards()) }
        dispatch.on(BlockResize.self) { call throws(ControlError) in
            let disk = try await self.command(call.device) { (disk) throws(BackendFailure) in try await disk.resize() }
            guard case .disk(let facts) = await disk.report().body else { return BlockResize.Reply(sectors: 0) }
            return BlockResize.Reply(sectors: Int64(clamping: facts.sectorCount ?? 0))
        }
        dispatch.on(MediaInsert.self) { call throws(ControlError) in
            _ = try await self.command(call.device) { (disk) throws(BackendFailure) in
                try await disk.insertMedium(call.target)
            }
            return NoParameters()
        }
        dispatch.on(MediaEject.self) { call throws(ControlError) in
            _ = try await self.command(call.device) { (disk) throws(BackendFailure) in try await disk.ejectMedium() }
            return NoParameters()
        }
        dispatch.on(Hotplug.self) { call throws(ControlError) in
            try await self.hotplug(call.path, call.event)
            return NoParameters()
        }
        return dispatch
    }

    private func hotplug(_ text: String, _ event: HotplugEvent) async throws(ControlError) {
        guard let path = DevicePath(text: text), path.domain == environment.domain else {
            throw .invalidParameter("path")
        }
        guard let backend = await device(path, waiting: event == .add ? Worker.hotplugPatience : .zero) else {
            throw noDevice(path.shortName)
        }
        do throws(BackendFailure) {
            try await backend.hotplug(event)
        } catch {
            throw error.answer(path)
        }
    }

    /// Runs a command on the one disk with that name.
    private func command(
        _ device: String,
        _ command: (any LiveDisk) async throws(BackendFailure) -> Void
    ) async throws(ControlError) -> any LiveDisk {
        guard let disk = try await selected(device, { $0.isDisk }) as? any LiveDisk else { throw noDevice(device) }
        do throws(BackendFailure) {
            try await command(disk)
        } catch {
            throw error.answer(disk.path)
        }
        return disk
    }

    private func noDevice(_ device: String) -> ControlError {
        .noSuchDevice(domain: "\(environment.domain)", device: device)
    }

    // MARK: reading

    private typealias Shown = (report: DeviceReport, context: DeviceContext)

    private func reports(_ isWanted: (DevicePath) -> Bool) async -> [Shown] {
        let name = await value(environment.domain.nameNode)
        var shown: [Shown] = []
        for backend in await devices() where isWanted(backend.path) {
            let context = DeviceContext(domainName: name, node: await node(of: backend.path), worker: getpid())
            shown.append((await backend.report(), context))
        }
        return shown
    }

    /// The one device with that name.
    private func selected(
        _ text: String,
        _ isCandidate: (DeviceKind) -> Bool = { _ in true }
    ) async throws(ControlError) -> any DeviceBackend {
        let candidates = await devices().filter { isCandidate($0.path.kind) }
        var names: [DeviceName] = []
        for backend in candidates { names.append(DeviceName(backend.path, node: await node(of: backend.path))) }
        let path = try DeviceName.only(text, of: environment.domain, among: names)
        guard let backend = candidates.first(where: { $0.path == path }) else { throw noDevice(text) }
        return backend
    }

    private func disks() async -> [Disk] {
        await reports { $0.kind.isDisk }.compactMap { report, context in
            guard case .disk(let disk) = report.body else { return nil }
            return Disk(device: Device(report, context), DiskFacts(disk))
        }
    }

    private func cards() async -> [NetworkCard] {
        await reports { $0.kind.hasInterface }.compactMap { report, context in
            guard case .card(let card) = report.body else { return nil }
            return NetworkCard(device: Device(report, context), CardFacts(card))
        }
    }

    private func node(of path: DevicePath) async -> String? { await value(path.key(BlockKeys.device)) }

    /// nil also where XenStore fails: a list with a gap is better than none.
    private func value(_ node: String) async -> String? {
        (try? await environment.hypervisor.store.read(node)) ?? nil
    }
}
