// The frontend's and the toolstack's keys: every number is checked, nothing traps.

internal import BackendCore
internal import HostNetwork
internal import Testing
internal import XenWire

@testable internal import NetBackend

@Suite struct ConnectionTests {
    private let capabilities = NetCapabilities(maxQueues: 4)

    private static let one = [
        "request-rx-copy": "1", "feature-rx-notify": "1", "feature-sg": "1", "feature-gso-tcpv4": "1",
        "feature-gso-tcpv6": "1", "feature-ipv6-csum-offload": "1", "tx-ring-ref": "8", "rx-ring-ref": "9",
        "event-channel": "5",
    ]
    private static let two = [
        "request-rx-copy": "1", "multi-queue-num-queues": "2",
        "queue-0/tx-ring-ref": "8", "queue-0/rx-ring-ref": "9", "queue-0/event-channel-tx": "5",
        "queue-0/event-channel-rx": "6",
        "queue-1/tx-ring-ref": "10", "queue-1/rx-ring-ref": "11", "queue-1/event-channel": "7",
    ]

    private func connect(_ keys: [String: String]) -> Result<NetConnection, FrontendNodeFault> {
        // The second round must ask for exactly what the parser then looks at.
        let first = FrontendNodes(keys.filter { NetConnection.firstKeys.contains($0.key) })
        let asked = Set(NetConnection.firstKeys + NetConnection.furtherKeys(first, capabilities))
        return Result { () throws(FrontendNodeFault) in
            try NetConnection(FrontendNodes(keys.filter { asked.contains($0.key) }), capabilities)
        }
    }

    @Test func oneQueueHasItsKeysAtTheTop() throws {
        var keys = ConnectionTests.one
        for count in [nil, "1"] {
            keys["multi-queue-num-queues"] = count
            let connection = try connect(keys).get()
            let port = EventChannelPort(5)
            #expect(
                connection.queues == [
                    .init(
                        transmitRing: GrantReference(8),
                        receiveRing: GrantReference(9),
                        transmitPort: port,
                        receivePort: port
                    )
                ]
            )
            #expect(
                connection.accepts == [.scatterGather, .checksumV4, .checksumV6, .segmentationV4, .segmentationV6]
            )
            #expect(connection.offloads == [.checksum, .segmentationV4, .segmentationV6])
            #expect(connection.notifiesOfBuffers)
        }
    }

    @Test func twoQueuesAreDirectoriesAndEachHasItsOwnChannels() throws {
        let connection = try connect(ConnectionTests.two).get()
        #expect(connection.queues.map(\.transmitPort.rawValue) == [5, 7])
        #expect(connection.queues.map(\.receivePort.rawValue) == [6, 7])
        #expect(connection.accepts == [.checksumV4])
        #expect(connection.offloads == [.checksum])
        #expect(!connection.notifiesOfBuffers)
    }

    @Test func aFrontendWithoutChecksumOffloadGetsWholeOnes() throws {
        var keys = ConnectionTests.one
        keys["feature-no-csum-offload"] = "1"
        #expect(try connect(keys).get().offloads == [.checksum, .segmentationV6])
        keys["feature-ipv6-csum-offload"] = "0"
        #expect(try connect(keys).get().offloads == [])
    }

    @Test func aControlRingNeedsItsChannel() throws {
        var keys = ConnectionTests.one
        keys["ctrl-ring-ref"] = "20"
        #expect(throws: FrontendNodeFault.self) { try connect(keys).get() }
        keys["event-channel-ctrl"] = "30"
        let control = try connect(keys).get().control
        #expect(control == .init(ring: GrantReference(20), port: EventChannelPort(30)))
    }

    @Test(
        "wrong keys are faults",
        arguments: [
            ("multi-queue-num-queues", "0"), ("multi-queue-num-queues", "5"),
            ("multi-queue-num-queues", "2147483648"), ("multi-queue-num-queues", "-1"),
            ("multi-queue-num-queues", ""), ("queue-1/tx-ring-ref", nil), ("queue-1/rx-ring-ref", nil),
            ("queue-1/event-channel", nil), ("queue-0/event-channel-rx", nil), ("queue-0/tx-ring-ref", "x"),
            ("queue-0/tx-ring-ref", "4294967296"), ("queue-1/tx-ring-ref", "8"), ("queue-1/event-channel", "0"),
            ("queue-1/event-channel", "5"), ("queue-1/event-channel", "131072"), ("request-rx-copy", nil),
            ("request-rx-copy", "0"),
        ] as [(String, String?)]
    )
    func wrongKeys(key: String, value: String?) {
        var keys = ConnectionTests.two
        keys[key] = value
        #expect(throws: FrontendNodeFault.self) { try connect(keys).get() }
    }

    @Test func queueKeysAtTheTopAreNotTwoQueues() {
        var keys = ConnectionTests.one
        keys["multi-queue-num-queues"] = "2"
        #expect(throws: FrontendNodeFault.self) { try connect(keys).get() }
    }

    @Test func theIdentityTellsConnectionsApart() throws {
        let connection = try connect(ConnectionTests.two).get()
        for (key, value) in [
            ("queue-1/tx-ring-ref", "12"), ("queue-1/event-channel", "8"), ("queue-0/rx-ring-ref", "1"),
        ] {
            var keys = ConnectionTests.two
            keys[key] = value
            #expect(try connect(keys).get().identity(domain: "a") != connection.identity(domain: "a"))
        }
        #expect(connection.identity(domain: "a") != connection.identity(domain: "b"))
    }

    // MARK: the toolstack's keys

    private func plan(_ keys: [String: String], native: Bool = false) throws(BackendFailure) -> InterfacePlan {
        let path = DevicePath(kind: .vif, domain: DomainID(7)!, index: 1)
        return try NetDeviceKeys(BackendNodes(path: path, own: .initial, values: keys)).plan(
            owner: "x",
            isNative: native
        )
    }

    @Test func theInterfaceHasItsUsualOrItsGivenName() throws {
        #expect(try plan([:]) == InterfacePlan(name: "vif7.1", owner: "x"))
        let keys = ["vifname": "lan0", "mtu": "9000", "mac": "00:16:3e:00:00:01", "bridge": "xenbr0"]
        #expect(try plan(keys) == InterfacePlan(name: "lan0", owner: "x", mtu: 9000))
        // libxl's scripts rename it, and refuse to if the name is there already.
        let scripted = keys.merging(["script": "/etc/xen/scripts/vif-bridge"]) { $1 }
        #expect(try plan(scripted).name == "vif7.1")
        #expect(try plan(scripted, native: true).name == "lan0")
    }

    @Test func withoutAScriptWePlaceItAsTheScriptWould() throws {
        let bridge = ["script": "/etc/xen/scripts/vif-bridge", "bridge": "xenbr0", "vlan": "12"]
        #expect(try plan(bridge, native: true).placement == .bridge(name: "xenbr0", vlan: 12))
        let route = ["script": "vif-route", "ip": "10.0.0.2 fd00::2", "gatewaydev": "eth1"]
        #expect(
            try plan(route, native: true).placement
                == .routed(addresses: ["10.0.0.2", "fd00::2"], gatewayDevice: "eth1")
        )
        #expect(
            try plan(["script": "vif-openvswitch", "bridge": "ovs.5"], native: true).placement == .openVSwitch("ovs.5")
        )
        #expect(try plan([:], native: true).placement == nil)
    }

    @Test(
        "nonsense of the toolstack is refused with the key's name",
        arguments: [
            ("mac", "00:16:3e"), ("mac", "zz:16:3e:00:00:01"), ("mtu", "67"), ("mtu", "65536"), ("mtu", "big"),
            ("vlan", "0"), ("vlan", "4095"), ("vlan", "-3"),
        ]
    )
    func nonsense(key: String, value: String) {
        var keys = ["bridge": "xenbr0"]
        keys[key] = value
        let failure = #expect(throws: BackendFailure.self) { try plan(keys, native: true) }
        #expect(failure?.kind == .invalid)
        #expect(failure?.text.contains(key) ?? false)
    }
}
