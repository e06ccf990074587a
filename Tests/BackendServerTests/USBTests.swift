// USB controllers made, filled and taken away over the control socket's verbs, with a bus that is a list.

import BackendCore
import HostIO
import HostUSB
import Hypervisor
import SimulatedHypervisor
import Synchronization
import Testing
import XenWire

@testable import BackendServer
@testable import ControlProtocol

/// What is plugged in, and nothing that could be opened.
private final class ListedBus: USBHost {
    let list = Mutex<[USBDeviceFacts]>([])

    func add(_ address: String, _ vendor: UInt16, _ product: UInt16, deviceClass: UInt8 = 0, name: String? = nil) {
        var facts = USBDeviceFacts(
            address: USBBusAddress(address)!,
            busNumber: 1,
            deviceNumber: 7,
            vendor: vendor,
            product: product,
            deviceClass: deviceClass,
            speed: .high
        )
        facts.productName = name
        list.withLock { $0.append(facts) }
    }

    func devices() throws(HostFailure) -> [USBDeviceFacts] { list.withLock { $0 } }

    func watch(on loop: EventLoop, _ changed: @escaping @Sendable () -> Void) throws(HostFailure) -> any USBWatch {
        throw HostFailure(.host, "nothing changes here")
    }

    func open(_ facts: USBDeviceFacts, owner: String, on loop: EventLoop) throws(HostFailure) -> any OpenUSBDevice {
        throw HostFailure(.host, "nothing can be opened here")
    }
}

/// Says that every controller and disk is ours and makes none: the broker only asks.
private struct ListedUSB: USBServing {
    let host: any USBHost
    var kinds: [DeviceKind] { [.vusb, .vbd3] }
    func owns(_ keys: BackendNodes) -> Bool { true }
    func makeBackend(_ path: DevicePath, _ environment: WorkerEnvironment) -> any DeviceBackend {
        fatalError("the broker makes no backends")
    }
}

@Suite(.serialized, .timeLimit(.minutes(2)))
struct USBTests {
    private let bus = ListedBus()

    /// A host with two guests, a stick, a keyboard and a hub.
    private func scene() async throws -> (SimulatedHost, Broker, Task<Void, Never>) {
        let host = try SimulatedHost()
        for number in [1, 2] as [UInt16] {
            try host.machine.createDomain(DomainID(number)!)
            try await host.dom0.store.write("/local/domain/\(number)/name", "guest\(number)")
        }
        bus.add("1-1", 0x0781, 0x5581, name: "Stick")
        bus.add("1-2", 0x0424, 0x2514, deviceClass: 9)
        bus.add("1-2.4", 0x046D, 0xC31C, name: "Keyboard")
        let broker = Broker(
            loop: host.loop,
            hypervisor: host.dom0,
            setting: BrokerSetting(
                run: host.run,
                workerCommand: { ["/bin/sleep", "100\($0?.rawValue ?? 0)"] },
                build: "this build"
            ),
            classes: DeviceClasses(all: [ListedUSB(host: bus)]),
            log: host.log
        )
        let task = Task(executorPreference: host.loop) {
            await broker.run()
            await broker.stopped()
        }
        return (host, broker, task)
    }

    /// As a client's call, answered on the broker's loop.
    private func call<Verb: ControlVerb>(_ broker: Broker, _ verb: Verb) async throws -> Verb.Reply {
        try await broker.call(verb)
    }

    /// Plays a backend and a frontend that connect.
    private func connect(_ host: SimulatedHost, _ path: DevicePath) async throws {
        try await eventually("the nodes of \(path)") { try await host.state(path) == .initialising }
        try await host.dom0.store.write("\(path)/state", "2")
        try await host.dom0.store.write("\(path)/state", "4")
    }

    private func create(_ host: SimulatedHost, _ broker: Broker, _ domain: UInt16, _ index: UInt32, _ line: String)
        async throws -> DevicePath
    {
        let path = DevicePath(kind: .vusb, domain: DomainID(domain)!, index: index)
        async let reply = call(broker, USBControllerCreate(domain: "guest\(domain)", controller: line))
        try await connect(host, path)
        #expect(try await reply.device.path == "\(path)")
        return path
    }

    private func refused<Verb: ControlVerb>(_ broker: Broker, _ verb: Verb, _ reason: String) async throws {
        let error = await #expect(throws: ControlError.self) { try await call(broker, verb) }
        #expect(error?.description.contains(reason) ?? false, "\(error?.description ?? "none"), not: \(reason)")
    }

    @Test func aControllerIsWrittenAsLibxlWritesIt() async throws {
        let (host, broker, task) = try await scene()
        let path = try await create(host, broker, 1, 0, "usbver=1, numports=3, port_2=1-1")
        let store = host.dom0.store
        let (backend, frontend) = ("/local/domain/0/backend/vusb/1/0", "/local/domain/1/device/vusb/0")
        let expected = [
            "frontend": frontend, "frontend-id": "1", "online": "1", "state": "4", "type": "pv", "usb-ver": "1",
            "num-ports": "3", "port": "", "port/1": "", "port/2": "1-1", "port/3": "",
        ]
        for (key, value) in expected { #expect(try await store.read("\(backend)/\(key)") == value, "\(key)") }
        #expect(try await store.directory(backend)?.count == 8)
        for (key, value) in ["backend": backend, "backend-id": "0", "state": "1"] {
            #expect(try await store.read("\(frontend)/\(key)") == value, "\(key)")
        }
        // What libxl believes (XSA-175): without it `xl usb-list` knows nothing, and a destroyed domain leaves it.
        for (key, value) in ["frontend": frontend, "backend": backend, "type": "pv", "usb-ver": "1", "num-ports": "3"] {
            #expect(try await store.read("/libxl/1/device/vusb/0/\(key)") == value, "\(key)")
        }
        let (own, guest) = (DomainID.initial, DomainID(1)!)
        let (back, front) = try await store.perform { (store) throws(HypervisorFailure) in
            (try store.permissions("\(backend)/port/2"), try store.permissions("\(frontend)/state"))
        }
        #expect(back == [XenStorePermission(own, .none), XenStorePermission(guest, .read)])
        #expect(front == [XenStorePermission(guest, .none), XenStorePermission(own, .read)])
        // The next one has the next number, also after one that only libxl knows.
        try await store.write("/libxl/1/device/vusb/1/type", "devicemodel")
        let second = try await create(host, broker, 1, 2, "")
        #expect(try await store.read("\(second)/num-ports") == "8")
        // And it goes as libxl takes it.
        async let gone = call(broker, USBControllerDestroy(domain: "1", device: "0"))
        try await eventually("asked to close") { try await host.state(path) == .closing }
        #expect(try await store.read("\(path)/online") == "0")
        try await store.write("\(path)/state", "6")
        _ = try await gone
        for directory in [backend, frontend, "/libxl/1/device/vusb/0"] {
            #expect(try await store.directory(directory) == nil, "\(directory)")
        }
        await broker.stop()
        await task.value
    }

    @Test func whatCannotBeInAPortIsRefusedWithWhatToDo() async throws {
        let (host, broker, task) = try await scene()
        let path = try await create(host, broker, 1, 0, "usbver=2, numports=2, port_1=1-1")
        let other = try await create(host, broker, 2, 0, "numports=31, port_31=class=03")
        func attach(_ domain: String, _ device: String, _ port: Int, _ bus: String, _ reason: String) async throws {
            try await refused(broker, USBAttach(domain: domain, device: device, port: port, bus: bus), reason)
        }
        // Names.
        for bus in [
            "", "1", "usb1", "1-0", "0-1", "1-1.", "1-1.1.1.1.1.1.1", "100-1", "01-1", "1-1 ", "0781:55", "x=1",
        ] {
            try await attach("2", "0", 1, bus, "is neither a place (1-1, 3-1.5) nor a rule")
        }
        try await attach("2", "0", 1, "class=09", "hubs are not given away")
        try await attach("2", "0", 1, "1-7", "there is no USB device at 1-7; xenback usb-list-assignable-devices")
        try await attach("2", "0", 1, "1-2", "the device at 1-2 is a hub; attach what is plugged into it")
        // Somebody has it: another guest, or the same one.
        let cure = "is in port 1 of USB controller 0 of domain 1; first: xenback usb-detach 1 0 1"
        try await attach("2", "0", 1, "1-1", cure)
        try await attach("guest1", "vusb/0", 2, "1-1", cure)
        // Ports.
        try await attach("1", "0", 1, "1-2.4", "port 1 of USB controller 0 of domain 1 has 1-1 already; first: ")
        try await attach("2", "0", 31, "1-2.4", "has class=03 already")
        for port in [0, 3, -1, Int.max, Int.min] {
            try await attach("1", "0", port, "1-2.4", "USB controller 0 has the ports 1 … 2, not \(port)")
        }
        try await refused(broker, USBDetach(domain: "1", device: "0", port: 2), "domain 1 is empty")
        try await refused(broker, USBDetach(domain: "1", device: "0", port: 0), "has the ports 1 … 2, not 0")
        // Controllers and domains.
        for device in ["1", "vusb/1", "qusb/0", "xvda", "", "-1"] {
            try await attach("1", device, 1, "1-2.4", "domain 1 has no device '\(device)' of ours")
            try await refused(broker, USBControllerDestroy(domain: "1", device: device), "has no device '\(device)'")
        }
        try await attach("guest3", "0", 1, "1-2.4", "no domain 'guest3'")
        // Lines.
        func line(_ line: String, _ reason: String, _ position: Int) async throws {
            let error = await #expect(throws: ControlError.self) {
                try await call(broker, USBControllerCreate(domain: "2", controller: line))
            }
            guard case .badUSBLine(let text, position) = error else {
                Issue.record("\(line): \(String(describing: error))")
                return
            }
            #expect(text.contains(reason), "\(text)")
        }
        try await line("numports=32", "numports is a number from 1 to 31", 9)
        try await line("port_1=1-2.4, port_2 = 1-1", cure, 23)
        try await line("port_1=1-2", "is a hub", 7)
        try await line("port_1=2-9", "there is no USB device at 2-9", 7)
        try await line("port_1=mouse", "is neither a place", 7)
        // Nothing of all that was written.
        let store = host.dom0.store
        #expect(try await store.directory("backend/vusb/2") == ["0"])
        for node in ["\(path)/port/2", "\(other)/port/1"] { #expect(try await store.read(node) == "") }
        await broker.stop()
        await task.value
    }

    @Test func listsShowWhatIsFreeAndWhatIsWhere() async throws {
        let (host, broker, task) = try await scene()
        #expect(
            try await call(broker, USBListAssignable()).text
                == "1-1          : ID 0781:5581 Stick\n1-2.4        : ID 046d:c31c Keyboard\n"
        )
        #expect(try await call(broker, USBList(domain: "1")).text == "no USB controllers\n")
        _ = try await create(host, broker, 1, 0, "usbver=2, numports=2, port_1=1-1")
        // A QEMU's controller is looked at as well.
        let foreign = "backend/qusb/2/0"
        try await host.dom0.store.write("\(foreign)/port/3", "1-2.4")
        #expect(try await call(broker, USBListAssignable()).devices.isEmpty)
        try await host.dom0.store.remove(foreign)
        #expect(try await call(broker, USBListAssignable()).devices.map(\.bus) == ["1-2.4"])
        // No worker tells what came of it.
        #expect(
            try await call(broker, USBList(domain: "guest1")).text == """
                Idx BE  state usb-ver BE-path
                0   0   4     USB2.0  /local/domain/0/backend/vusb/1/0
                port 1: 1-1 [not there]
                port 2:

                """
        )
        try await eventually("the next scan") { try await call(broker, List()).devices.map(\.kind) == ["vusb"] }
        // Keys that make no sense are no trap.
        try await host.dom0.store.write("backend/vusb/1/0/num-ports", "4294967296")
        #expect(try await call(broker, USBList(domain: "1")).controllers.first?.ports == [])
        try await refused(
            broker,
            USBAttach(domain: "1", device: "0", port: 1, bus: "1-2.4"),
            "domain 1 has no device 'vusb/0'"
        )
        await broker.stop()
        await task.value
    }

    @Test func withoutUSBTheSettingsAreNamed() async throws {
        let host = try SimulatedHost()
        try host.machine.createDomain(DomainID(1)!)
        let broker = Broker(
            loop: host.loop,
            hypervisor: host.dom0,
            setting: BrokerSetting(run: host.run, workerCommand: { _ in ["/bin/true"] }, build: "this build"),
            classes: DeviceClasses(all: []),
            log: host.log
        )
        try await refused(broker, USBListAssignable(), "see [usb] in xenbackd.toml")
        try await refused(broker, USBControllerCreate(domain: "1", controller: ""), "see [usb] in xenbackd.toml")
        try await refused(broker, USBAttach(domain: "1", device: "0", port: 1, bus: "1-1"), "see [usb]")
    }

    /// A running xl reads node after node and takes each for granted: nothing goes before all of its own is gone.
    @Test func whatTheToolstackLeavesIsRemovedAfterItsOwn() async throws {
        let (host, broker, task) = try await scene()
        let controller = try await create(host, broker, 1, 0, "numports=2, port_1=class=03")
        let disk = try await host.attach(1)
        let store = host.dom0.store
        try await eventually("both are listed") { try await call(broker, List()).devices.count == 2 }
        try host.machine.destroyDomain(DomainID(1)!)
        for path in [controller, disk] {
            try await eventually("closed by the broker", within: .seconds(30)) {
                try await host.state(path) == .closed
            }
        }
        // libxl removes a device's nodes, then the domain's, then its own, each of them for good.
        for step in ["/libxl/1/device/vusb/0", "/libxl/1/device/vbd", "/local/domain/1"] {
            try await store.remove(step)
            // Scans come and go meanwhile.
            for path in [controller, disk] {
                #expect(try await scanned(broker).devices[path]?.state == .closed, "after \(step)")
            }
        }
        try await store.remove("/libxl/1")
        for path in [controller, disk] {
            try await eventually("removed") { try await store.directory("backend/\(path.kind)/1") == nil }
        }
        await broker.stop()
        await task.value
    }

    private func scanned(_ broker: Broker) async throws -> DeviceListing {
        try await Task(executorPreference: broker.loop) { try await broker.scanned() }.value
    }

    /// A controller with empty ports, as libxl makes one when a guest is restarted.
    private func restart(_ host: SimulatedHost, from old: UInt16?, as new: UInt16, uuid: String) async throws
        -> DevicePath
    {
        if let old {
            let nodes = DeviceNodes(own: .initial, path: DevicePath(kind: .vusb, domain: DomainID(old)!, index: 0))
            for port in 1...3 { try await host.dom0.store.write("\(nodes.backend)/port/\(port)", "") }
            try host.machine.destroyDomain(DomainID(old)!)
            try await host.dom0.store.transaction { (store) throws(HypervisorFailure) in
                try nodes.remove(from: store)
                try store.remove("/local/domain/\(old)")
            }
        }
        try host.machine.createDomain(DomainID(new)!)
        try await host.dom0.store.write("/local/domain/\(new)/vm", "/vm/\(uuid)")
        let controller = USBControllerSpecification(domain: DomainID(new)!, index: 0, version: 2, portCount: 3)
        let written = try await host.dom0.store.transaction { (store) throws(HypervisorFailure) in
            try DeviceNodes(own: .initial, path: controller.path).write(controller, to: store)
        }
        #expect(written)
        return controller.path
    }

    private func ports(_ host: SimulatedHost, _ path: DevicePath) async throws -> [String?] {
        var texts: [String?] = []
        for port in 1...3 { texts.append(try await host.dom0.store.read("\(path)/port/\(port)")) }
        return texts
    }

    @Test func assignmentsOutliveAGuestsRestart() async throws {
        let (host, broker, task) = try await scene()
        let (uuid, other) = ("6f1e9ad4-0000-4000-8000-0123456789ab", "6f1e9ad4-0000-4000-8000-0123456789ac")
        try await host.dom0.store.write("/local/domain/1/vm", "/vm/\(uuid)")
        try await host.dom0.store.write("/local/domain/2/vm", "/vm/\(other)")
        _ = try await create(host, broker, 1, 0, "numports=3, port_1=class=03, port_2=1-1, port_3=0781:5581")
        _ = try await call(broker, USBDetach(domain: "1", device: "0", port: 3))
        let second = try await restart(host, from: 1, as: 3, uuid: uuid)
        try await eventually("the ports") { try await ports(host, second) == ["class=03", "1-1", ""] }
        // And again, also for a broker that has seen nothing of it.
        let third = try await restart(host, from: 3, as: 4, uuid: uuid)
        try await eventually("the ports") { try await ports(host, third) == ["class=03", "1-1", ""] }
        // What was taken out by hand stays out; what another guest has got meanwhile is that guest's.
        _ = try await call(broker, USBDetach(domain: "4", device: "0", port: 2))
        let taken = try await create(host, broker, 2, 0, "port_1=1-1")
        let fourth = try await restart(host, from: 4, as: 5, uuid: uuid)
        try await eventually("the ports") { try await ports(host, fourth) == ["class=03", "", ""] }
        _ = try await call(broker, USBDetach(domain: "2", device: "0", port: 1))
        #expect(try await host.dom0.store.read("\(taken)/port/1") == "")
        // A guest that does not come back is forgotten, not at once.
        try host.machine.destroyDomain(DomainID(5)!)
        try await host.dom0.store.remove("/local/domain/5")
        let missing = await broker.swept([])
        #expect(missing == [uuid])
        #expect(try await host.dom0.store.directory("xenback/usb/\(uuid)") != nil)
        #expect(await broker.swept(missing) == [])
        #expect(try await host.dom0.store.directory("xenback/usb/\(uuid)") == nil)
        await broker.stop()
        await task.value
    }

    @Test func anotherGuestsPortsAreNotFilled() async throws {
        let (host, broker, task) = try await scene()
        let uuid = "6f1e9ad4-0000-4000-8000-0123456789ab"
        try await host.dom0.store.write("/local/domain/1/vm", "/vm/\(uuid)")
        _ = try await create(host, broker, 1, 0, "numports=3, port_1=1-1, port_2=class=03")
        let stranger = try await restart(host, from: nil, as: 7, uuid: "6f1e9ad4-0000-4000-8000-0123456789ff")
        let again = try await restart(host, from: 1, as: 8, uuid: uuid)
        try await eventually("the ports") { try await ports(host, again) == ["1-1", "class=03", ""] }
        #expect(try await ports(host, stranger) == ["", "", ""])
        // A controller that is taken away and made anew by hand has empty ports, now and after a restart.
        let nodes = DeviceNodes(own: .initial, path: again)
        try await host.dom0.store.transaction { (store) throws(HypervisorFailure) in try nodes.remove(from: store) }
        try await eventually("its end is seen") { try await call(broker, List()).devices.allSatisfy { $0.domain != 8 } }
        let controller = USBControllerSpecification(domain: DomainID(8)!, index: 0, version: 2, portCount: 3)
        _ = try await host.dom0.store.transaction { (store) throws(HypervisorFailure) in
            try nodes.write(controller, to: store)
        }
        let node = "xenback/usb/\(uuid)/0/port"
        try await eventually("forgotten") { try await (host.dom0.store.directory(node) ?? []).isEmpty }
        await broker.stop()
        await task.value
    }

    @Test func portsTakeTheWordsOfXmAndXl() throws {
        bus.add("1-1", 0x0781, 0x5581)
        let devices = bus.list.withLock { $0 }
        func resolved(_ text: String) -> String {
            do throws(ControlError) {
                return try USBPortText.resolved(text, among: devices)
            } catch { return "refused: \(error)" }
        }
        // xm 4.0, `usb-attach`; ours; xl.cfg(5), `usbdev`, and xl(1), `usbdev-attach`.
        for (text, place) in [
            ("1-1", "1-1"), ("3-1.5", "3-1.5"), ("0781:5581", "0781:5581"), ("serial=hostbus=1", "serial=hostbus=1"),
            ("hostbus=1,hostaddr=7", "1-1"), ("type=hostdev,hostbus=1,hostaddr=7", "1-1"),
            ("hostaddr=7,hostbus=1", "1-1"),
        ] {
            #expect(resolved(text) == place, "\(text)")
        }
        for (text, reason) in [
            ("hostbus=1,hostaddr=8", "there is no USB device with hostbus=1,hostaddr=8"),
            ("hostbus=1", "needs both hostbus= and hostaddr="), ("hostbus=0,hostaddr=7", "'hostbus=0' in"),
            ("hostbus=256,hostaddr=7", "'hostbus=256' in"), ("hostbus=1,hostaddr=7,", "'' in"),
            (
                "type=hostdev,hostbus=1,hostaddr=7,controller=0,port=1",
                "'controller=0': controller and port come before"
            ),
            ("type=pv,hostbus=1,hostaddr=7", "'type=pv' in"), ("host:0781:5581", "usbdevice= of the device model"),
            ("host:1.7", "usbdevice= of the device model"),
        ] {
            let text = resolved(text)
            #expect(text.hasPrefix("refused: ") && text.contains(reason), "\(text)")
        }
    }
}
