// What is decided without a machine: keys, the news of ports, what a successor remembers, how a device is offered.

internal import BackendCore
internal import HostUSB
internal import SharedRing
internal import SimulatedHost
internal import Testing
internal import XenWire

@testable internal import USBBackend

@Suite struct ValueTests {
    // MARK: keys

    private func shape(_ version: String?, _ count: String?) throws(BackendFailure) -> USBControllerShape {
        var values: [String: String] = [:]
        values["usb-ver"] = version
        values["num-ports"] = count
        let path = DevicePath(kind: .vusb, domain: DomainID(7)!, index: 0)
        return try USBDeviceKeys(BackendNodes(path: path, own: .initial, values: values)).shape()
    }

    @Test func aControllerIsWhatTheToolstackSays() throws {
        #expect(try shape("1", "1") == USBControllerShape(.usb11, portCount: 1))
        #expect(try shape("2", "31") == USBControllerShape(.usb20, portCount: 31))
    }

    @Test(
        "nonsense of the toolstack is refused with the key's name",
        arguments: [
            ("usb-ver", nil, "4"), ("usb-ver", "", "4"), ("usb-ver", "0", "4"), ("usb-ver", "3", "4"),
            ("usb-ver", "-1", "4"), ("usb-ver", "2.0", "4"), ("usb-ver", "4294967298", "4"), ("num-ports", "2", nil),
            ("num-ports", "2", "0"), ("num-ports", "2", "32"), ("num-ports", "2", "-4"), ("num-ports", "2", "257"),
            ("num-ports", "2", "four"), ("num-ports", "2", "18446744073709551617"),
        ] as [(String, String?, String?)]
    )
    func nonsense(key: String, version: String?, count: String?) {
        let failure = #expect(throws: BackendFailure.self) { try shape(version, count) }
        #expect(failure?.kind == .invalid)
        #expect(failure?.text.hasPrefix(key) ?? false, "\(failure?.text ?? "")")
    }

    private static let keys = ["urb-ring-ref": "8", "conn-ring-ref": "9", "event-channel": "5"]

    private func connect(_ keys: [String: String]) -> Result<USBConnection, FrontendNodeFault> {
        Result { () throws(FrontendNodeFault) in try USBConnection(FrontendNodes(keys), ()) }
    }

    @Test(arguments: [nil, "x86_32-abi", "x86_64-abi", "arm-abi"])
    func aFrontendNamesItsRings(abi: String?) throws {
        var keys = ValueTests.keys
        keys["protocol"] = abi
        let connection = try connect(keys).get()
        #expect(connection.urbRing == GrantReference(8) && connection.connectionRing == GrantReference(9))
        #expect(connection.port == EventChannelPort(5))
        keys["conn-ring-ref"] = "10"
        #expect(try connect(keys).get().identity(domain: "a") != connection.identity(domain: "a"))
        #expect(connection.identity(domain: "a") != connection.identity(domain: "b"))
    }

    @Test(
        "wrong keys are faults",
        arguments: [
            ("urb-ring-ref", nil), ("conn-ring-ref", nil), ("event-channel", nil), ("urb-ring-ref", "-1"),
            ("urb-ring-ref", "4294967296"), ("conn-ring-ref", "8"), ("event-channel", "0"), ("event-channel", "131072"),
            ("event-channel", "x"), ("protocol", "ia64-abi"), ("protocol", ""),
        ] as [(String, String?)]
    )
    func wrongKeys(key: String, value: String?) {
        var keys = ValueTests.keys
        keys[key] = value
        #expect(throws: FrontendNodeFault.self) { try connect(keys).get() }
    }

    // MARK: news of ports

    private func news(_ events: inout USBPortEvents) -> [String] {
        var said: [String] = []
        while let (port, speed) = events.next(), said.count < 100 {
            events.said(port, speed)
            said.append("\(port) \(speed)")
        }
        return said
    }

    @Test func onlyTheLatestOfAPortIsSaid() {
        var events = USBPortEvents(portCount: 4)
        let (one, two) = (USBPort(1)!, USBPort(2)!)
        #expect(news(&events) == [])
        events.plug(two, .high)
        events.plug(one, .low)
        #expect(news(&events).sorted() == ["1 low", "2 high"])
        for _ in 0..<1000 {
            events.unplug(one)
            events.plug(one, .low)
        }
        // Another device of the same speed is seen only with a `none` in between.
        #expect(news(&events) == ["1 none", "1 low"])
        events.unplug(two)
        events.plug(two, .full)
        events.unplug(two)
        #expect(news(&events) == ["2 none"])
        events.plug(two, .full)
        events.unplug(two)
        #expect(news(&events) == [])
        events.plug(two, .full)
        #expect(news(&events) == ["2 full"])
    }

    @Test func aPredecessorsWordHoldsAndANewFrontendKnowsNothing() {
        var events = USBPortEvents(portCount: 2)
        let port = USBPort(1)!
        events.restore(port, .high)
        #expect(news(&events) == [])
        events.plug(port, .high)
        #expect(news(&events) == ["1 none", "1 high"])
        events.forget()
        #expect(news(&events) == ["1 high"])
    }

    // MARK: memory

    @Test func whatASuccessorRemembers() {
        var memory = USBPortMemory()
        (memory.told, memory.address, memory.isUsed, memory.configuration) = (.high, 5, true, 1)
        memory.alternates[3] = 2
        memory.identity = 0x0123_4567_89AB_CDEF
        let bytes = USBPortMemory.bytes(of: [USBPortMemory(), memory])
        #expect(bytes.count == 2 * USBPortMemory.byteCount)
        #expect(USBPortMemory.ports(2, from: bytes) == [USBPortMemory(), memory])
        #expect(USBPortMemory.ports(3, from: bytes) == [USBPortMemory(), memory, USBPortMemory()])
        #expect(USBPortMemory.ports(2, from: []) == [USBPortMemory(), USBPortMemory()])
        var wrong = bytes
        wrong[0] = 77
        #expect(USBPortMemory.ports(1, from: wrong) == [USBPortMemory()])
    }

    @Test func aDeviceThatCameBackIsAnotherOne() {
        func identity(_ change: (inout USBDeviceFacts) -> Void) -> UInt64 {
            var facts = USBDeviceFacts(
                address: USBBusAddress("1-1")!,
                busNumber: 1,
                deviceNumber: 4,
                vendor: 0x0781,
                product: 0x5581,
                deviceClass: 0,
                speed: .high
            )
            change(&facts)
            return USBPortMemory.identity(of: facts)
        }
        let same = identity { _ in }
        #expect(identity { _ in } == same)
        #expect(identity { $0.deviceNumber = 5 } != same)
        #expect(identity { $0.serial = "1" } != same)
        #expect(identity { $0.address = USBBusAddress("1-2")! } != same)
    }

    // MARK: offers

    private func capabilities(_ function: any SimulatedFunction, _ version: USBVersion) throws(USBRefusal)
        -> USBCapabilities
    {
        let facts = USBDeviceFacts(
            address: USBBusAddress("1-1")!,
            busNumber: 1,
            deviceNumber: 4,
            vendor: 1,
            product: 2,
            deviceClass: 0,
            speed: function.speed
        )
        return try USBCapabilities(facts, function.descriptors, version: version)
    }

    @Test func devicesAreOfferedAtTheirSpeed() throws {
        let medium = try PrivatePages(byteCount: 4096)
        #expect(try capabilities(SimulatedKeyboard(), .usb11).speed == .low)
        #expect(try capabilities(SimulatedSound(.microphone), .usb20).speed == .full)
        #expect(try capabilities(SimulatedDisk(medium, speed: .high), .usb20).speed == .high)
        let disguised = try capabilities(SimulatedDisk(medium, speed: .super), .usb20)
        #expect(disguised.speed == .high)
        #expect("\(disguised)".contains("super"))
        guard case .bytes(let bytes) = disguised.answer(to: .device, index: 0, length: 18) else {
            Issue.record("the descriptor is the device's own")
            return
        }
        #expect(bytes[2...3] == [0, 2] && bytes[7] == 64)
        #expect(disguised.answer(to: .objectStore, index: 0, length: 5) == .stall)
    }

    @Test(arguments: [USBSpeed.high, .super])
    func whatUSB11CannotCarryIsRefused(speed: USBSpeed) throws {
        let disk = SimulatedDisk(try PrivatePages(byteCount: 4096), speed: speed)
        let refusal = #expect(throws: USBRefusal.self) { try capabilities(disk, .usb11) }
        #expect(refusal?.text.contains("USB 1.1") ?? false)
    }

    @Test func endpointsFollowTheAlternateSettings() throws {
        let capabilities = try capabilities(SimulatedSound(.microphone), .usb20)
        let endpoint = USBEndpointAddress(1, .in)
        var alternates = [UInt8](repeating: 0, count: 32)
        #expect(capabilities.endpoints(1, alternates)[endpoint] == nil)
        alternates[1] = 1
        #expect(capabilities.endpoints(1, alternates)[endpoint] == .isochronous)
        #expect(capabilities.endpoints(0, alternates)[endpoint] == nil)
        #expect(capabilities.endpoints(2, alternates)[endpoint] == nil)
    }
}
