// USB controllers and their ports, made and filled as by xl, with its checks and more.

internal import ControlProtocol
internal import HostIO
internal import HostUSB
internal import Hypervisor
internal import Logging
internal import XenWire

/// The toolstack's half of USB, for domains of the host we run on.
struct USBToolstack: Sendable {
    let store: any XenStore
    /// We, the backend's domain.
    let own: DomainID
    let host: any USBHost
    let loop: EventLoop

    /// Ports whose rules have found a device, by where that is.
    typealias Held = [USBBusAddress: USBAssignments.Entry]

    /// All devices of the host.
    func hostDevices() async throws(ControlError) -> [USBDeviceFacts] {
        let host = host
        let found = await loop.blocking { Result { () throws(HostFailure) in try host.devices() } }
        do throws(HostFailure) {
            return try found.get()
        } catch {
            throw .deviceFailed(reason: error.text)
        }
    }

    func assignments() async throws(ControlError) -> USBAssignments {
        try await transaction { (store) throws(HypervisorFailure) in .success(try USBAssignments.read(store)) }
    }

    /// Writes a controller with devices in its ports; `DeviceToolstack.serve` waits for the backend.
    /// - Throws: `.badUSBLine` for a device that cannot be in a port, with its place.
    func create(_ line: USBLine, for domain: DomainID, held: Held) async throws(ControlError)
        -> USBControllerSpecification
    {
        let (found, own) = (try await hostDevices(), own)
        return try await transaction {
            (store) throws(HypervisorFailure) -> Result<USBControllerSpecification, ControlError> in
            let assignments = try USBAssignments.read(store)
            if let error = assignments.objection(to: line, among: found, held: held) { return .failure(error) }
            let controller = USBControllerSpecification(
                domain: domain,
                index: try USBControllerSpecification.freeIndex(of: domain, in: store),
                version: line.version.rawValue,
                portCount: line.portCount,
                ports: Dictionary(uniqueKeysWithValues: line.ports.map { ($0.number, $0.device) })
            )
            guard try DeviceNodes(own: own, path: controller.path).write(controller, to: store) else {
                return .failure(.deviceFailed(reason: "domain \(domain) has a \(controller.name) already"))
            }
            try RememberedPorts.forget(controller.path, store)
            for (port, text) in controller.ports {
                try RememberedPorts.remember(text, in: port, of: controller.path, store)
            }
            return .success(controller)
        }
    }

    /// Forgets the assignments of a controller that was removed.
    func forget(_ path: DevicePath) async throws(ControlError) {
        try await transaction { (store) throws(HypervisorFailure) -> Result<Void, ControlError> in
            try RememberedPorts.forget(path, store)
            return .success(())
        }
    }

    /// Writes a device into a port. The caller checks whether the backend can open it.
    /// - Throws: `.deviceFailed` for an impossible assignment, with what to do about it.
    func attach(_ text: String, to port: Int, of path: DevicePath, held: Held) async throws(ControlError)
        -> USBDeviceRule
    {
        let found = try await hostDevices()
        let text = try USBPortText.resolved(text, among: found)
        return try await transaction { (store) throws(HypervisorFailure) -> Result<USBDeviceRule, ControlError> in
            let (assignments, count) = (try USBAssignments.read(store), try USBAssignments.portCount(of: path, store))
            let rule = Result { () throws(ControlError) -> USBDeviceRule in
                try assignments.checkEmpty(port, of: path, count: count)
                return try assignments.check(text, among: found, held: held)
            }
            if case .success = rule {
                try store.write("\(path)/port/\(port)", text)
                try RememberedPorts.remember(text, in: port, of: path, store)
            }
            return rule
        }
    }

    /// Empties a port.
    /// - Returns: what was in it.
    /// - Throws: `.deviceFailed` if nothing was.
    func detach(_ port: Int, of path: DevicePath) async throws(ControlError) -> String {
        try await transaction { (store) throws(HypervisorFailure) -> Result<String, ControlError> in
            let (assignments, count) = (try USBAssignments.read(store), try USBAssignments.portCount(of: path, store))
            let text = Result { () throws(ControlError) -> String in
                try assignments.checkFull(port, of: path, count: count)
            }
            if case .success = text {
                try store.write("\(path)/port/\(port)", "")
                try RememberedPorts.remember("", in: port, of: path, store)
            }
            return text
        }
    }

    private func transaction<R: Sendable>(
        _ body: @escaping @Sendable (any XenStoreOperations) throws(HypervisorFailure) -> Result<R, ControlError>
    ) async throws(ControlError) -> R {
        let result: Result<R, ControlError>
        do throws(HypervisorFailure) {
            result = try await store.transaction(body)
        } catch {
            throw .deviceFailed(reason: "XenStore: \(error)")
        }
        return try result.get()
    }
}
