// Attaching and detaching devices without xl: what libxl does, in its order and with its limits.

internal import ControlProtocol
internal import HostIO
internal import Hypervisor
internal import Logging
internal import XenWire

/// The toolstack's half of a device's life, for domains of the host we run on.
struct DeviceToolstack: Sendable {
    /// LIBXL_INIT_TIMEOUT and LIBXL_DESTROY_TIMEOUT (libxl_internal.h).
    static let stateTime: Duration = .seconds(10)

    let store: any XenStore
    let own: DomainID
    let loop: EventLoop
    let log: Logger
    /// The hotplug script's work, done by the device's worker.
    let hotplug: WorkerHotplug

    /// Writes the nodes, and waits as `serve` does.
    func attach(_ device: some DeviceSpecification) async throws(ControlError) {
        let nodes = DeviceNodes(own: own, path: device.path)
        let isNew = try await told { () async throws(HypervisorFailure) in
            try await store.transaction { (store) throws(HypervisorFailure) in try nodes.write(device, to: store) }
        }
        guard isNew else {
            throw .deviceFailed(reason: "domain \(device.path.domain) has a \(device.name) already")
        }
        try await serve(device)
    }

    /// For a device whose nodes are written: waits for state 2, runs the hotplug step, waits for state 4.
    /// - Throws: `.deviceFailed` after removing the device again; `.timedOut` if only the guest's driver has not
    ///   connected yet (the device stays).
    func serve(_ device: some DeviceSpecification) async throws(ControlError) {
        let nodes = DeviceNodes(own: own, path: device.path)
        log.notice("attached \(device.path.shortName) (\(device.summary))")
        do throws(ControlError) {
            try await prepared(device, nodes)
        } catch {
            try? await detach(device.path, force: true)
            throw error
        }
        try await connected(device, nodes)
    }

    private func prepared(_ device: some DeviceSpecification, _ nodes: DeviceNodes) async throws(ControlError) {
        let state = try await state(nodes, [.initWait, .initialised, .connected, .closing, .closed])
        switch state {
        case .initWait, .initialised, .connected: break
        case .closing, .closed: throw await failure(nodes, "the backend closed the device")
        default: throw .timedOut(reason: "no backend began to serve \(device.path.shortName) within 10 s")
        }
        if device.hasScript { try await hotplug(device.path, .add) }
    }

    private func connected(_ device: some DeviceSpecification, _ nodes: DeviceNodes) async throws(ControlError) {
        switch try await state(nodes, [.connected, .closing, .closed]) {
        case .connected: return
        case .closing, .closed: throw await failure(nodes, "the backend closed the device")
        default:
            let guest = try await told { () async throws(HypervisorFailure) in
                try await store.read("\(nodes.frontend)/\(BusKeys.state)").flatMap { XenbusState(text: $0) }
            }
            throw .timedOut(
                reason: "\(device.name) is attached, but the guest's driver did not connect within 10 s"
                    + " (its state: \(guest?.description ?? "none"))"
            )
        }
    }

    /// Asks the guest to release the device, waits for state 6, removes the nodes.
    /// - Throws: `.timedOut` if the guest does not release it and `force` is not given (then all stays as it is).
    func detach(_ path: DevicePath, force: Bool) async throws(ControlError) {
        let nodes = DeviceNodes(own: own, path: path)
        if !(try await closed(nodes, force: false)) {
            guard force else {
                throw .timedOut(
                    reason: "the guest did not release \(path.shortName) within 10 s (in use?); force removes it"
                )
            }
            log.warning("\(path.shortName): the guest does not release it; removed")
            _ = try await closed(nodes, force: true)
        }
        // The worker may have released the device already: then there is nothing left to do.
        if path.kind.isDisk { try? await hotplug(path, .remove) }
        try await told { () async throws(HypervisorFailure) in
            try await store.transaction { (store) throws(HypervisorFailure) in try nodes.remove(from: store) }
        }
        log.notice("detached \(path.shortName)")
    }

    /// Asks for the end and waits for it. A node that is gone counts as closed.
    private func closed(_ nodes: DeviceNodes, force: Bool) async throws(ControlError) -> Bool {
        let isThere = try await told { () async throws(HypervisorFailure) in
            try await store.transaction { (store) throws(HypervisorFailure) in
                try nodes.requestClose(store, force: force)
            }
        }
        guard isThere, let state = try await state(nodes, [.closed]) else { return true }
        return state == .closed
    }

    private func state(_ nodes: DeviceNodes, _ wanted: Set<XenbusState>) async throws(ControlError) -> XenbusState? {
        try await told { () async throws(HypervisorFailure) in
            try await StateWait.wait(
                for: wanted,
                at: "\(nodes.backend)/\(BusKeys.state)",
                in: store,
                on: loop,
                within: DeviceToolstack.stateTime
            )
        }
    }

    /// The backend's own error, where it left one.
    private func failure(_ nodes: DeviceNodes, _ otherwise: String) async -> ControlError {
        let text = try? await store.perform { (store) throws(HypervisorFailure) in
            if let text = try store.read("\(nodes.backend)/\(BusKeys.hotplugError)") { return text }
            return try store.read(nodes.path.errorNode)
        }
        return .deviceFailed(reason: text.flatMap { $0 } ?? otherwise)
    }

    private func told<R>(_ body: () async throws(HypervisorFailure) -> R) async throws(ControlError) -> R {
        do throws(HypervisorFailure) {
            return try await body()
        } catch {
            throw .deviceFailed(reason: "XenStore: \(error)")
        }
    }
}
