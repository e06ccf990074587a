// The broker's verbs for USB: who has what, controllers made and taken away, devices put into ports and out.

internal import BackendCore
internal import ControlProtocol
internal import HostIO
internal import HostUSB
internal import Hypervisor
internal import Logging
internal import XenWire

extension Broker {
    /// What a device's backend does after its port was written, it does within this time.
    static let portTime: Duration = .seconds(10)
    /// What a device's last owner still holds, it lets go of within this time.
    static let refusalTime: Duration = .seconds(2)

    nonisolated func addUSBVerbs(to dispatch: inout ControlDispatch) {
        dispatch.on(USBListAssignable.self) { _ throws(ControlError) in
            USBListAssignable.Reply(devices: try await self.assignableDevices())
        }
        dispatch.on(USBList.self) { call throws(ControlError) in
            USBList.Reply(controllers: try await self.controllers(of: try await self.domain(call.domain)))
        }
        dispatch.on(USBControllerCreate.self) { call throws(ControlError) in
            try await self.create(call)
        }
        dispatch.on(USBControllerDestroy.self) { call throws(ControlError) in
            let path = try await self.controller(call.device, of: call.domain)
            try await self.usbToolstack().destroy(path, force: call.force ?? false)
            return Nothing()
        }
        dispatch.on(USBAttach.self) { call throws(ControlError) in
            USBAttach.Reply(port: try await self.attach(call))
        }
        dispatch.on(USBDetach.self) { call throws(ControlError) in
            try await self.detach(call)
            return Nothing()
        }
    }

    /// - Throws: `.notSupported` where no class of ours serves USB.
    private func usbToolstack() throws(ControlError) -> USBToolstack {
        guard let host = classes.usbHost else {
            throw .notSupported(reason: "USB controllers are not served here: see [usb] in xenbackd.toml")
        }
        return USBToolstack(devices: toolstack, host: host)
    }

    // MARK: controllers

    private func create(_ call: USBControllerCreate) async throws(ControlError) -> USBControllerCreate.Reply {
        let line: USBLine
        do throws(USBLineError) {
            line = try USBLine(parsing: call.controller)
        } catch {
            throw .badUSBLine(reason: error.reason, position: error.position)
        }
        let toolstack = try usbToolstack()
        let domain = try await domain(call.domain)
        let path = try await toolstack.create(line, for: domain, held: await held())
        return USBControllerCreate.Reply(device: await shown(path))
    }

    /// The one controller of ours that is called so.
    private func controller(_ text: String, of domain: String) async throws(ControlError) -> DevicePath {
        _ = try usbToolstack()
        let domain = try await self.domain(domain)
        let names = await present().filter { $0.domain == domain }.map { DeviceName($0, node: nil) }
        return try DeviceName.only(text, of: domain, among: names)
    }

    /// All controllers of ours as they are now: one that was made a moment ago may not be in the last scan.
    private func present() async -> [DevicePath] {
        let now = (try? await scanned()) ?? listing
        return now.devices.values.filter { $0.isOurs && $0.path.kind.isUSB }.map(\.path).sorted()
    }

    // MARK: lists

    private func assignableDevices() async throws(ControlError) -> [ControlProtocol.USBDevice] {
        let toolstack = try usbToolstack()
        let (devices, assignments) = (try await toolstack.hostDevices(), try await toolstack.assignments())
        let held = await held()
        return devices.filter { device in
            !device.isHub && held[device.address] == nil && assignments.holder(of: device.address) == nil
        }.map { ControlProtocol.USBDevice($0) }
    }

    private func controllers(of domain: DomainID) async throws(ControlError) -> [USBController] {
        let toolstack = try usbToolstack()
        let (devices, assignments) = (try await toolstack.hostDevices(), try await toolstack.assignments())
        var controllers: [USBController] = []
        let reports = await reports(of: domain)
        for path in await present() where path.domain == domain {
            let report = reports.first { $0.device.path == path.description }
            let values = try? await hypervisor.store.perform { (store) throws(HypervisorFailure) in
                (try store.read("\(path)/usb-ver"), try USBAssignments.portCount(of: path, store))
            }
            let ports = (1...max(1, values?.1 ?? 1)).map { number in
                let address = report?.portAddress(number)
                return USBController.Port(
                    number: number,
                    wanted: assignments.text(in: number, of: path),
                    device: devices.first { $0.address == address }.map { ControlProtocol.USBDevice($0) },
                    problem: report?.portProblem(number)
                )
            }
            controllers.append(
                USBController(
                    device: await shown(path),
                    backend: Int(hypervisor.domains.own.rawValue),
                    version: values?.0.flatMap { Int($0) },
                    ports: values?.1 == nil ? [] : ports
                )
            )
        }
        return controllers
    }

    /// What the domain's worker tells of its devices; nothing if there is none or it does not answer.
    private func reports(of domain: DomainID) async -> [Report] {
        guard workers[domain]?.process != nil else { return [] }
        let call = Show(domain: "\(domain)")
        let socket = setting.run.socket(of: domain)
        let reply = try? await WorkerCall.perform(call, at: socket, on: loop, timeout: .seconds(5))
        return reply?.reports ?? []
    }

    /// Where the devices are that guests have, by place or by rule.
    private func held() async -> USBToolstack.Held {
        var held: USBToolstack.Held = [:]
        for domain in Set(await present().map(\.domain)) {
            for report in await reports(of: domain) {
                guard let path = DevicePath(text: report.device.path), path.kind.isUSB else { continue }
                for port in 1...USBLine.portLimit {
                    guard let address = report.portAddress(port) else { continue }
                    held[address] = USBAssignments.Entry(path: path, port: port, text: "\(address)")
                }
            }
        }
        return held
    }

    // MARK: ports

    private func attach(_ call: USBAttach) async throws(ControlError) -> USBController.Port {
        let path = try await controller(call.device, of: call.domain)
        let toolstack = try usbToolstack()
        let rule = try await toolstack.attach(call.bus, to: call.port, of: path, held: await held())
        log(of: path).notice("port \(call.port) is for \(call.bus)")
        let begun = ContinuousClock.now
        while ContinuousClock.now < begun + Broker.portTime {
            let report = await reports(of: path.domain).first { $0.device.path == path.description }
            switch report?.port(call.port) {
            case .device(let address):
                let device = try await toolstack.hostDevices().first { $0.address == address }
                return USBController.Port(
                    number: call.port,
                    wanted: call.bus,
                    device: device.map { ControlProtocol.USBDevice($0) }
                )
            case .failed(let reason) where ContinuousClock.now > begun + Broker.refusalTime:
                _ = try? await toolstack.detach(call.port, of: path)
                throw .deviceFailed(reason: reason)
            case .waiting where rule.address == nil:
                return USBController.Port(number: call.port, wanted: call.bus)
            case .failed, .waiting, nil: await loop.sleep(for: Broker.askAgain)
            }
        }
        throw .timedOut(
            reason: "port \(call.port) is for \(call.bus) now, but its backend did not take the device within 10 s;"
                + " xenback show \(path.domain) \(path.nameInDomain) tells more"
        )
    }

    private func detach(_ call: USBDetach) async throws(ControlError) {
        let path = try await controller(call.device, of: call.domain)
        let text = try await usbToolstack().detach(call.port, of: path)
        log(of: path).notice("port \(call.port) is empty; \(text) was in it")
        let deadline = ContinuousClock.now + Broker.portTime
        while ContinuousClock.now < deadline {
            let report = await reports(of: path.domain).first { $0.device.path == path.description }
            if report?.port(call.port) == nil { return }
            await loop.sleep(for: Broker.askAgain)
        }
        throw .timedOut(
            reason: "port \(call.port) is to be empty, but its backend did not let go of \(text) within 10 s"
        )
    }
}

/// What a backend's report says of a port that is not empty.
enum ReportedPort: Equatable {
    case device(USBBusAddress)
    case waiting
    case failed(String)
}

extension Report {
    /// Read from the fact `port N`: `1-1.4: ID …` with a device in it, `failed: …`, or `waiting for …`.
    func port(_ number: Int) -> ReportedPort? {
        guard let text = facts.first(where: { $0.name == "port \(number)" })?.value else { return nil }
        let failed = "failed: "
        if text.hasPrefix(failed) { return .failed(String(text.dropFirst(failed.count))) }
        return USBBusAddress(String(text.prefix { $0 != ":" && $0 != " " })).map { .device($0) } ?? .waiting
    }

    func portAddress(_ number: Int) -> USBBusAddress? {
        if case .device(let address) = port(number) { address } else { nil }
    }

    func portProblem(_ number: Int) -> String? {
        if case .failed(let reason) = port(number) { reason } else { nil }
    }
}

extension ControlProtocol.USBDevice {
    init(_ facts: USBDeviceFacts) {
        let names = [facts.manufacturerName, facts.productName].compactMap { $0 }
        self.init(
            bus: "\(facts.address)",
            vendor: Int(facts.vendor),
            product: Int(facts.product),
            name: names.isEmpty ? nil : names.joined(separator: " "),
            serial: facts.serial,
            speed: facts.speed.rawValue
        )
    }
}

extension DeviceKind {
    var isUSB: Bool { frontendKind == DeviceKind.vusb.rawValue }
}
