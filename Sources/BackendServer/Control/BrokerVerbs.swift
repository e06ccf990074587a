// The broker's verbs: most are forwarded to the domain's worker; attaching and detaching are done here.

internal import ControlProtocol
internal import HostIO
internal import Hypervisor
internal import SystemPackage
internal import XenWire

#if canImport(Glibc)
    internal import Glibc
#endif

/// What a person can ask of the broker. Verbs hold no state: they use the broker's listing and workers, and the
/// toolstack half. Other files have the verbs for disks (`DiskVerbs.swift`), for netchannel2 cards
/// (`Network2Verbs.swift`), for USB (`USBVerbs.swift`) and for PCI
/// (`PCIVerbs.swift`).
struct BrokerVerbs: Sendable {
    let broker: Broker
    var store: any XenStore { broker.hypervisor.store }
    /// The domain whose backends we are.
    var own: DomainID { broker.hypervisor.domains.own }

    init(_ broker: Broker) { self.broker = broker }

    /// The table of the control socket.
    func dispatch() -> ControlDispatch {
        var dispatch = ControlDispatch(product: "xenbackd", version: Release.version, process: Int(getpid()))
        dispatch.on(List.self) { _ in List.Reply(devices: await list()) }
        dispatch.on(Show.self) { call throws(ControlError) in try await show(call) }
        dispatch.on(NetworkList.self) { call throws(ControlError) in
            try await broker.forward(call, to: try await domain(call.domain), none: NetworkList.Reply(cards: [])) {
                $0.hasInterface
            }
        }
        dispatch.on(Hotplug.self) { call throws(ControlError) in
            guard let path = DevicePath(text: call.path) else { throw .invalidParameter("path") }
            try await broker.hotplug(path, call.event)
            return NoParameters()
        }
        addDiskVerbs(to: &dispatch)
        addNetwork2Verbs(to: &dispatch)
        addUSBVerbs(to: &dispatch)
        addPCIVerbs(to: &dispatch)
        return dispatch
    }

    /// The toolstack half.
    /// - Throws: `.notSupported` in a driver domain, which may not write the frontend's half of a device.
    func toolstack() throws(ControlError) -> DeviceToolstack {
        guard own == .initial else {
            throw .notSupported(
                reason: "domain \(own) is a driver domain: it serves devices, and dom0 attaches and detaches them"
                    + " (xl block-attach … backend=\(own))"
            )
        }
        return DeviceToolstack(store: store, own: own, loop: broker.loop, log: broker.log, hotplug: broker.hotplug)
    }

    /// One device, or all of a domain. A device that has no worker has no report: the answer is the reason.
    private func show(_ call: Show) async throws(ControlError) -> Show.Reply {
        let domain = try await domain(call.domain)
        guard let device = call.device else {
            return try await broker.forward(call, to: domain, none: Show.Reply(reports: []))
        }
        do throws(ControlError) {
            return try await broker.forward(call, to: domain)
        } catch {
            guard case .workerUnavailable = error else { throw error }
            var names: [DeviceName] = []
            for path in await broker.listing.devices(of: domain).map(\.path) {
                names.append(DeviceName(path, node: await broker.shown(path).node))
            }
            _ = try DeviceName.only(device, of: domain, among: names)
            throw error
        }
    }

    private func list() async -> [Device] {
        var devices: [Device] = []
        let listing = await broker.listing
        for domain in await broker.servedDomains.sorted() {
            let served = await broker.ask(List(), of: domain)?.devices ?? []
            let known = Set(served.map(\.path))
            devices += served
            for device in listing.devices(of: domain) where !known.contains(device.path.description) {
                devices.append(await broker.shown(device.path))
            }
        }
        return devices
    }

    // MARK: names

    /// By number or name. A driver domain may not read other domains' homes, so there a number is enough: a home that
    /// is not readable (EACCES) exists, and so does a domain whose devices we serve.
    func domain(_ text: String) async throws(ControlError) -> DomainID {
        guard let domain = DomainID(text: text) else { return try await domain(named: text) }
        if await broker.servedDomains.contains(domain) { return domain }
        let isThere: Bool
        do throws(HypervisorFailure) {
            isThere = try await store.directory(domain.home) != nil
        } catch {
            if error.errno != .permissionDenied { throw .deviceFailed(reason: "XenStore: \(error)") }
            isThere = true
        }
        if !isThere { throw .noSuchDomain(text) }
        return domain
    }

    private func domain(named name: String) async throws(ControlError) -> DomainID {
        let found: DomainID?
        do throws(HypervisorFailure) {
            found = try await store.perform { (store) throws(HypervisorFailure) in
                for text in try store.directory(DomainID.homes) ?? [] {
                    guard let domain = DomainID(text: text) else { continue }
                    if try store.read(domain.nameNode) == name { return domain }
                }
                return nil
            }
        } catch {
            if error.errno != .permissionDenied { throw .deviceFailed(reason: "XenStore: \(error)") }
            found = nil
        }
        if let found { return found }
        if own == .initial { throw .noSuchDomain(name) }
        throw .notSupported(
            reason: "a driver domain (this is domain \(own)) may not read the names of others: say the number of"
                + " '\(name)' (xenback list shows the domains that have devices here)"
        )
    }
}
