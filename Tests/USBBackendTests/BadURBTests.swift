// URBs of a frontend that is wrong or lies: it gets an answer or loses its controller, and nobody else notices.

internal import BackendCore
internal import FrontendDrivers
internal import HostIO
internal import HostUSB
internal import Hypervisor
internal import SharedRing
internal import SimulatedHost
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import USBBackend

/// A request that is wrong, and the answer it gets.
struct BadURB: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let status: URBStatus
    let request: @Sendable (RawController) -> RawRequest

    init(_ name: String, _ status: URBStatus, _ request: @escaping @Sendable (RawController) -> RawRequest) {
        testDescription = name
        self.status = status
        self.request = request
    }

    /// To the disk in port 1, which has address 5.
    static func bulk(_ raw: RawController, _ change: (inout RawRequest) -> Void) -> RawRequest {
        var request = RawRequest(9, RawRequest.pipe(.bulk, endpoint: 1, .in))
        request.segments = [raw.segment(0)]
        change(&request)
        return request
    }

    static func control(_ raw: RawController, _ setup: SetupPacket, length: UInt16? = nil) -> RawRequest {
        var request = RawRequest(9, RawRequest.pipe(.control, setup.length > 0 ? setup.direction : .out))
        let length = length ?? setup.length
        if length > 0 { request.segments = [raw.segment(0, length: length)] }
        request.specifics = .control(setup)
        return request
    }

    /// To the microphone in port 2, which has address 6 and its setting with an endpoint.
    static func isochronous(
        _ raw: RawController,
        packets: [(UInt32, UInt32)],
        count: UInt16? = nil,
        frameBytes: UInt16? = nil
    ) -> RawRequest {
        var bytes: [UInt8] = []
        for (offset, length) in packets {
            for number in [offset, length, 0, 0] {
                bytes += (0..<4).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
            }
        }
        if !bytes.isEmpty { raw.fill(9, bytes) }
        var request = RawRequest(9, RawRequest.pipe(.isochronous, port: 2, device: 6, endpoint: 1, .in))
        request.segments = [
            raw.segment(1, length: 1000), raw.segment(9, length: frameBytes ?? UInt16(max(16, bytes.count))),
        ]
        request.specifics = .isochronous(
            interval: 1,
            startFrame: 0,
            packets: count ?? UInt16(packets.count),
            frameSegments: 1
        )
        request.byteCount = 1000
        return request
    }

    static let all: [BadURB] = [
        BadURB("port 0", .noDevice) { bulk($0) { $0.pipe &= ~0x1F } },
        BadURB("port 5 of 4", .noDevice) { bulk($0) { $0.pipe = $0.pipe & ~0x1F | 5 } },
        BadURB("port 31", .noDevice) { bulk($0) { $0.pipe |= 0x1F } },
        BadURB("an empty port", .noDevice) { bulk($0) { $0.pipe = $0.pipe & ~0x1F | 4 } },
        BadURB("an address that nobody has", .noDevice) { bulk($0) { $0.pipe ^= 0x7F << 8 } },
        BadURB("another port's address", .noDevice) { bulk($0) { $0.pipe = $0.pipe & ~(0x7F << 8) | 6 << 8 } },
        BadURB("an endpoint that is not there", .invalid) { bulk($0) { $0.pipe |= 15 << 15 } },
        BadURB("an endpoint in the other direction", .invalid) { bulk($0) { $0.pipe ^= 0x80 } },
        BadURB("a bulk endpoint asked for interrupts", .invalid) {
            bulk($0) {
                $0.pipe = RawRequest.pipe(.interrupt, endpoint: 1, .in)
                $0.specifics = .interrupt(interval: 1)
            }
        },
        BadURB("bulk on endpoint 0", .invalid) { bulk($0) { $0.pipe = RawRequest.pipe(.bulk, .in) } },
        BadURB("undefined bits of the pipe", .invalid) { bulk($0) { $0.pipe |= 1 << 25 } },
        BadURB("undefined flags", .invalid) { bulk($0) { $0.flags = 0x8000 } },
        BadURB("17 segments", .invalid) { raw in
            bulk(raw) {
                $0.segments = (0..<16).map { raw.segment($0) }
                $0.segmentCount = 17
            }
        },
        BadURB("65535 segments", .invalid) { bulk($0) { $0.segmentCount = 65535 } },
        BadURB("fewer bytes than segments", .invalid) { bulk($0) { $0.byteCount = 4095 } },
        BadURB("more bytes than segments", .invalid) { bulk($0) { $0.byteCount = 4097 } },
        BadURB("no bytes in a segment", .invalid) { bulk($0) { $0.byteCount = 0 } },
        BadURB("a segment beyond its page", .invalid) { raw in
            bulk(raw) { $0.segments = [raw.segment(0, offset: 4000, length: 97)] }
        },
        BadURB("an empty segment (XSA-448)", .invalid) { raw in
            bulk(raw) { $0.segments = [raw.segment(0, length: 0)] }
        },
        BadURB("wLength beyond the buffer", .invalid) {
            control($0, SetupPacket(0x80, 6, value: 0x100, length: 64), length: 18)
        },
        BadURB("wLength without a buffer", .invalid) {
            control($0, SetupPacket(0x80, 6, value: 0x100, length: 65535), length: 0)
        },
        BadURB("a setup packet against its pipe", .invalid) { raw in
            var request = control(raw, SetupPacket(0x80, 6, value: 0x100, length: 18))
            request.pipe ^= 0x80
            return request
        },
        BadURB("SET_ADDRESS beyond 127", .stall) { control($0, SetupPacket(0, 5, value: 128)) },
        BadURB("SET_FEATURE(TEST_MODE)", .stall) { control($0, SetupPacket(0, 3, value: 2, index: 0x400)) },
        BadURB("a configuration that is not there", .stall) { control($0, SetupPacket(0, 9, value: 77)) },
        BadURB("a grant that is none", .invalid) { raw in
            bulk(raw) {
                $0.pipe = RawRequest.pipe(.bulk, endpoint: 2, .out)
                $0.segments = [URBSegment(GrantReference(99_999), offset: 0, length: 31)]
            }
        },
        BadURB("a read into a page that may not be written", .invalid) { raw in
            var request = control(raw, SetupPacket(0x80, 6, value: 0x100, length: 18))
            request.segments = [URBSegment(raw.readOnly.references[0], offset: 0, length: 18)]
            return request
        },
        BadURB("no packets", .invalid) { isochronous($0, packets: [(0, 192)], count: 0) },
        BadURB("more packets than descriptors", .invalid) { isochronous($0, packets: [(0, 192)], count: 2) },
        BadURB("65535 packets", .invalid) { isochronous($0, packets: [(0, 192)], count: 65535) },
        BadURB("half a descriptor", .invalid) { isochronous($0, packets: [(0, 192)], frameBytes: 8) },
        BadURB("overlapping packets", .invalid) { isochronous($0, packets: [(0, 192), (191, 192)]) },
        BadURB("a packet beyond the buffer", .invalid) { isochronous($0, packets: [(900, 192)]) },
        BadURB("a packet whose end wraps", .invalid) { isochronous($0, packets: [(4_294_967_295, 192)]) },
        BadURB("a packet of 4 GiB", .invalid) { isochronous($0, packets: [(0, 4_294_967_295)]) },
        BadURB("an unlink of an id that is not in flight", .notFound) { _ in
            var request = RawRequest(9, RawRequest.pipe(.bulk, endpoint: 1, .in) | 0x20)
            request.specifics = .unlink(4711)
            return request
        },
        BadURB("an unlink of itself", .notFound) { _ in
            var request = RawRequest(9, RawRequest.pipe(.bulk, endpoint: 1, .in) | 0x20)
            request.specifics = .unlink(9)
            return request
        },
    ]
}

extension SimulatedControllerTests {
    @Suite struct BadURBTests {
        /// A raw controller with a disk and a microphone that a usual guest would have set up.
        private func controller() async throws -> RawController {
            let scene = try await USBScene(
                ports: [1: "1-1", 2: "1-2"],
                connects: false,
                plugging: [
                    ("1-1", SimulatedDisk(try USBScene.medium(seed: 1))), ("1-2", SimulatedSound(.microphone)),
                ]
            )
            let raw = try await RawController(scene)
            try await raw.connect()
            #expect(await eventually { raw.eventsSaid == 2 })
            for (port, address) in [(1, 5), (2, 6)] as [(UInt32, UInt16)] {
                var request = RawRequest(1, RawRequest.pipe(.control, port: port, device: 0, .out))
                request.specifics = .control(SetupPacket(0, 5, value: address))
                #expect(await raw.perform([request]).map(\.status) == [.okay])
            }
            var setting = RawRequest(1, RawRequest.pipe(.control, port: 2, device: 6, .out))
            setting.specifics = .control(SetupPacket(1, 11, value: 1, index: 1))
            #expect(await raw.perform([setting]).map(\.status) == [.okay])
            return raw
        }

        /// The disk answers, the bystander is served.
        private func end(_ raw: RawController, sourceLocation: SourceLocation = #_sourceLocation) async throws {
            let good = await raw.perform([BadURB.control(raw, SetupPacket(0x80, 6, value: 0x100, length: 18))])
            #expect(good.map(\.status) == [.okay], sourceLocation: sourceLocation)
            #expect(good.map(\.byteCount) == [18], sourceLocation: sourceLocation)
            #expect(raw.bytes(0, 2) == [18, 1], sourceLocation: sourceLocation)
            try await raw.scene.end(sourceLocation: sourceLocation)
        }

        @Test func wrongURBsAreAnsweredAndTheControllerGoesOn() async throws {
            let raw = try await controller()
            for bad in BadURB.all {
                let answers = await raw.perform([bad.request(raw)])
                #expect(answers.map(\.id) == [9], "\(bad.testDescription)")
                #expect(answers.map(\.status) == [bad.status], "\(bad.testDescription)")
                #expect(answers.map(\.byteCount) == [0], "\(bad.testDescription)")
            }
            // All of them at once, sixteen by sixteen.
            var rest = BadURB.all[...]
            while !rest.isEmpty {
                let some = Array(rest.prefix(16))
                // Those of isochronous packets share a page for their descriptors.
                let answers = await raw.perform(some.map { $0.request(raw) })
                #expect(answers.count == some.count)
                #expect(answers.allSatisfy { $0.status != .okay })
                rest = rest.dropFirst(16)
            }
            try await end(raw)
        }

        /// The batch of grant copies is the loop's: what one controller left in it, its neighbour would run, and would
        /// take for its own.
        @Test func noFaultLeavesCopiesToTheNeighbour() async throws {
            let raw = try await controller()
            let backend = try raw.scene.backend
            let queue = await backend.queue
            let data = try #require(queue).facts.data
            func neighbourHasItsTurn(after what: String) async throws {
                let left = await Task(executorPreference: data.loop) { data.copies.count }.value
                #expect(left == 0, "\(what)")
                try await raw.scene.bystanderIsServed()
            }
            for bad in BadURB.all {
                // Behind one whose data go to the device, and before one whose data come from it.
                var out = RawRequest(1, RawRequest.pipe(.bulk, endpoint: 2, .out))
                out.segments = [raw.segment(3, length: 31)]
                let look = BadURB.control(raw, SetupPacket(0x80, 6, value: 0x100, length: 18))
                #expect(await raw.perform([out, bad.request(raw), look]).count == 3, "\(bad.testDescription)")
                try await neighbourHasItsTurn(after: bad.testDescription)
            }
            // Good requests, and a lie about how many there are: the connection is broken in this turn.
            for place in 0..<3 {
                var out = RawRequest(1, RawRequest.pipe(.bulk, endpoint: 2, .out))
                out.segments = [raw.segment(3, length: 31)]
                raw.put(out, at: raw.requestProducer &+ UInt32(place))
            }
            raw.requestProducer = raw.requestProducer &+ 17
            raw.notify()
            try await raw.scene.isClosed(saying: "producer")
            try await neighbourHasItsTurn(after: "a lying ring")
            try await raw.scene.end()
        }

        @Test(arguments: [17, 0x8000_0000, UInt32.max])
        func aLyingURBRingIsClosed(ahead: UInt32) async throws {
            let raw = try await controller()
            raw.requestProducer = raw.requestProducer &+ ahead
            raw.notify()
            try await raw.scene.isClosed(saying: "producer")
            try await raw.scene.end()
        }

        @Test(arguments: [513, 0x8000_0000])
        func aLyingConnectionRingIsClosed(ahead: UInt32) async throws {
            let raw = try await controller()
            raw.connections.requestProducer = 2 &+ ahead
            raw.scene.usb.unplug(USBBusAddress("1-1")!)
            try await raw.scene.isClosed(saying: "producer")
            try await raw.scene.end()
        }

        /// A frontend that posts nothing on its connection ring hears nothing; when it does, only the latest.
        @Test func newsWaitForRequestsWithoutGrowing() async throws {
            let scene = try await USBScene(ports: [1: "1-1"], connects: false)
            let raw = try await RawController(scene)
            try await raw.connect(posting: 0)
            let address = USBBusAddress("1-1")!
            for _ in 0..<20 {
                try scene.usb.plug(SimulatedKeyboard(), at: address)
                try await scene.says("1-1", of: 1)
                scene.usb.unplug(address)
                try await scene.says("waiting", of: 1)
            }
            try scene.usb.plug(SimulatedDisk(try USBScene.medium(seed: 1)), at: address)
            try await scene.says("1-1", of: 1)
            #expect(raw.eventsSaid == 0)
            raw.connections.requestProducer = 1
            raw.notify()
            #expect(await eventually { raw.eventsSaid == 1 })
            #expect(raw.event(at: 0).port == USBPort(1))
            #expect(raw.event(at: 0).speed == USBIFSpeed.high.rawValue)
            try await scene.end()
        }

        @Test func aThousandURBsAtOnce() async throws {
            let raw = try await controller()
            var next = RawRequest(0, RawRequest.pipe(.control, .in))
            next.specifics = .control(SetupPacket(0x80, 6, value: 0x100, length: 18))
            var answered = 0
            while answered < 1008 {
                let batch = (0..<16).map { id in
                    var request = next
                    request.id = UInt16(id)
                    request.segments = [raw.segment(id, length: 18)]
                    return request
                }
                let answers = await raw.perform(batch)
                #expect(answers.count == 16 && answers.allSatisfy { $0.status == .okay && $0.byteCount == 18 })
                #expect(Set(answers.map(\.id)) == Set(0..<16))
                if answers.isEmpty { break }
                answered += answers.count
            }
            try await end(raw)
        }

        /// A guest that resets its device without end: the host's device is reset a few times a second at most.
        @Test func resetsWithoutEndAreBounded() async throws {
            let raw = try await controller()
            let rounds = 300
            for _ in 0..<rounds {
                var look = RawRequest(1, RawRequest.pipe(.control, device: 0, .in))
                look.specifics = .control(SetupPacket(0x80, 6, value: 0x100, length: 18))
                look.segments = [raw.segment(0, length: 18)]
                var address = RawRequest(2, RawRequest.pipe(.control, device: 0, .out))
                address.specifics = .control(SetupPacket(0, 5, value: 5))
                #expect(await raw.perform([look, address]).map(\.status) == [.okay, .okay])
            }
            let (done, skipped) = (try await raw.scene.counter("resets"), try await raw.scene.counter("resets-skipped"))
            #expect(done + skipped == UInt64(rounds))
            #expect(skipped > 0)
            try await end(raw)
        }

        @Test func eventsForNothingDoNotHurt() async throws {
            let raw = try await controller()
            for _ in 0..<2000 { raw.notify() }
            try await end(raw)
        }
    }
}
