// The broker's verbs for USB: lists, making and removing controllers, attaching devices to ports and detaching them.

internal import BackendCore
internal import ControlProtocol
internal import HostIO
internal import HostUSB
internal import Hypervisor
internal import Logging
internal import XenWire

extension BrokerVerbs {
    /// How long a backend may take to react to a port's assignment.
    static let portTime: Duration = .seconds(10)
    /// How long a device's last owner may take to release it.
    static let refusalTime: Duration = .seconds(2)

    func addUSBVerbs(to dispatch: inout ControlDispatch) {
        dispatch.on(USBListAssignable.self) { _ throws(ControlError) in
            USBListAssignable.Reply(devices: try await assignableDevices())
        }
        dispatch.on(USBList.self) { call throws(ControlError) in
            USBList.Reply(controllers: try await controllers(of: try await domain(call.domain)))
        }
        dispatch.on(USBControllerCreate.self) { call throws(ControlError) in
            try await create(call)
        }
        dispatch.on(USBControllerDestroy.self) { call throws(ControlError) in
            let path = try await controller(call.device, of: call.domain)
            try await toolstack().detach(path, force: call.force ?? false)
            try await usbToolstack().forget(path)
            return NoParameters()
        }
        dispatch.on(USBAttach.self) { call throws(ControlError) in
            USBAttach.Reply(port: try await attach(call))
        }
        dispatch.on(USBDetach.self) { call throws(ControlError) in
            try await detach(call)
            return NoParameters()
        }
    }

    /// - Throws: `.notSupported` where no class of ours serves USB.
    private func usbToolstack() async throws(ControlError) -> USBToolstack {
        guard let host = await broker.classes.usbHost else {
            throw .notSupported(reason: "USB controllers are not served here: see [usb] in xenbackd.toml")
        }
        return USBToolstack(store: store, own: own, host: host, loop: broker.loop)
    }

    // MARK: controllers

    private func create(_ call: USBControllerCreate) async throws(ControlError) -> USBControllerCreate.Reply {
        let line: USBLine
        do throws(DeviceLineError) {
            line = try USBLine(parsing: call.controller)
        } catch {
            throw .badUSBLine(reason: error.reason, position: error.position)
        }
        let (devices, toolstack) = (try toolstack(), try await usbToolstack())
        let domain = try await domain(call.domain)
        let controller = try await toolstack.create(line, for: domain, held: await held())
        try await devices.serve(controller)
        let path = controller.path
        return USBControllerCreate.Reply(device: await broker.shown(path))
    }

    /// The one controller of ours with that name.
    private func controller(_ text: String, of guest: String) async throws(ControlError) -> DevicePath {
        _ = try await usbToolstack()
        let domain = try await domain(guest)
        let names = await present().filter { $0.domain == domain }.map { DeviceName($0, node: nil) }
        return try DeviceName.only(text, of: domain, among: names)
    }

    /// All controllers of ours as they are now: one that was made a moment ago may not be in the last scan.
    private func present() async -> [DevicePath] {
        let scanned = try? await broker.scanned()
        let now = if let scanned { scanned } else { await broker.listing }
        return now.devices.values.filter { $0.isOurs && $0.path.kind.isUSB }.map(\.path).sorted()
    }

    // MARK: lists

    private func assignableDevices() async throws(ControlError) -> [USBDevice] {
        let toolstack = try await usbToolstack()
        let (devices, assignments) = (try await toolstack.hostDevices(), try await toolstack.assignments())
        let held = await held()
        return devices.filter { device in
            !device.isHub && held[device.address] == nil && assignments.holder(of: device.address) == nil
        }.map { USBDevice($0) }
    }

    private func controllers(of domain: DomainID) async throws(ControlError) -> [USBController] {
        let toolstack = try await usbToolstack()
        let (devices, assignments) = (try await toolstack.hostDevices(), try await toolstack.assignments())
        var controllers: [USBController] = []
        let reports = await reports(of: domain)
        for path in await present() where path.domain == domain {
            let report = reports.first { $0.device.path == path.description }
            let values = try? await store.perform { (store) throws(HypervisorFailure) in
                (try store.read("\(path)/usb-ver"), try USBAssignments.portCount(of: path, store))
            }
            let ports = (1...max(1, values?.1 ?? 1)).map { number in
                let port = report?.controller?.port(number)
                let address = port?.bus.flatMap { USBBusAddress($0) }
                return USBController.Port(
                    number: number,
                    wanted: assignments.text(in: number, of: path),
                    device: devices.first { $0.address == address }.map { USBDevice($0) },
                    problem: port?.state == .failed ? port?.text : nil
                )
            }
            controllers.append(
                USBController(
                    device: await broker.shown(path),
                    backend: Int(own.rawValue),
                    version: values?.0.flatMap { Int($0) },
                    ports: values?.1 == nil ? [] : ports
                )
            )
        }
        return controllers
    }

    /// The reports of the domain's worker about its devices; none if there is no worker or it does not answer.
    private func reports(of domain: DomainID) async -> [Report] {
        await broker.ask(Show(domain: "\(domain)"), of: domain)?.reports ?? []
    }

    /// The places of the devices that guests have.
    private func held() async -> USBToolstack.Held {
        var held: USBToolstack.Held = [:]
        for domain in Set(await present().map(\.domain)) {
            for report in await reports(of: domain) {
                guard let path = DevicePath(text: report.device.path), path.kind.isUSB else { continue }
                for port in report.controller?.ports ?? [] {
                    guard let address = port.bus.flatMap({ USBBusAddress($0) }) else { continue }
                    held[address] = USBAssignments.Entry(path: path, port: port.number, text: "\(address)")
                }
            }
        }
        return held
    }

    // MARK: ports

    /// The worker's present report about a port; nil if the port is empty or there is no answer.
    private func port(_ number: Int, of path: DevicePath) async -> ControllerFacts.Port? {
        await reports(of: path.domain).first { $0.device.path == path.description }?.controller?.port(number)
    }

    private func attach(_ call: USBAttach) async throws(ControlError) -> USBController.Port {
        let path = try await controller(call.device, of: call.domain)
        let toolstack = try await usbToolstack()
        let rule = try await toolstack.attach(call.bus, to: call.port, of: path, held: await held())
        broker.log(of: path).notice("port \(call.port) is for \(call.bus)")
        let begun = ContinuousClock.now
        while ContinuousClock.now < begun + BrokerVerbs.portTime {
            let port = await port(call.port, of: path)
            switch port?.state {
            case .device:
                let device = try await toolstack.hostDevices().first { "\($0.address)" == port?.bus }
                return USBController.Port(
                    number: call.port,
                    wanted: call.bus,
                    device: device.map { USBDevice($0) }
                )
            case .failed where ContinuousClock.now > begun + BrokerVerbs.refusalTime:
                _ = try? await toolstack.detach(call.port, of: path)
                throw .deviceFailed(reason: port?.text ?? "its backend refused the device")
            case .waiting where rule.address == nil:
                return USBController.Port(number: call.port, wanted: call.bus)
            case .failed, .waiting, nil: await broker.loop.sleep(for: WorkerHotplug.askAgain)
            }
        }
        throw .timedOut(
            reason: "port \(call.port) is assigned to \(call.bus) now, but its backend did not open the device within"
                + " 10 s; xenback show \(path.domain) \(path.nameInDomain) tells more"
        )
    }

    private func detach(_ call: USBDetach) async throws(ControlError) {
        let path = try await controller(call.device, of: call.domain)
        let text = try await usbToolstack().detach(call.port, of: path)
        broker.log(of: path).notice("port \(call.port) is empty; \(text) was in it")
        let deadline = ContinuousClock.now + BrokerVerbs.portTime
        while ContinuousClock.now < deadline {
            if await port(call.port, of: path) == nil { return }
            await broker.loop.sleep(for: WorkerHotplug.askAgain)
        }
        throw .timedOut(
            reason: "port \(call.port) is no longer assigned, but its backend did not release \(text) within 10 s"
        )
    }
}

extension USBDevice {
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
