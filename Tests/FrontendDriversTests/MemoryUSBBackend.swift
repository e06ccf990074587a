// The smallest USB backend that can serve a frontend: one task over its rings, devices that are functions.

internal import Hypervisor
internal import SharedRing
internal import Synchronization
internal import SystemPackage
internal import XenWire

/// What a device does with a transfer.
struct MemoryUSBAnswer: Sendable {
    var status = URBStatus.okay
    /// Data for the guest.
    var bytes: [UInt8] = []
    /// Bytes of the guest's that were taken; nil: all.
    var taken: Int?

    static let okay = MemoryUSBAnswer()
    static let stall = MemoryUSBAnswer(status: .stall)
    static func bytes(_ bytes: [UInt8]) -> MemoryUSBAnswer { MemoryUSBAnswer(bytes: bytes) }
}

/// A device behind the test's backend.
protocol MemoryUSBDevice: AnyObject, Sendable {
    var speed: USBIFSpeed { get }
    var device: [UInt8] { get }
    var configuration: [UInt8] { get }
    func control(_ setup: SetupPacket, _ data: [UInt8]) -> MemoryUSBAnswer
    /// Bulk, interrupt, or one isochronous packet. nil: nothing yet, ask again.
    func transfer(_ endpoint: USBEndpointAddress, _ data: [UInt8], count: Int) -> MemoryUSBAnswer?
}

/// A backend for tests of frontends. It trusts the frontend and the test.
final class MemoryUSBBackend: Sendable {
    /// What a test can have it do.
    struct Orders: Sendable {
        /// Answers with ids that were never asked for.
        var liesAboutIDs = false
        var answersTwice = false
        /// Put on the connection ring as they stand, but for the id.
        var events: [WireWords] = []
    }

    let path: DevicePath
    private let hypervisor: any Hypervisor
    private let stopped = Atomic(false)
    let orders = Mutex(Orders())
    private let devices = Mutex<[UInt8: any MemoryUSBDevice]>([:])
    private let log = Mutex<[URBRequest]>([])

    /// All URBs and unlinks in the order of the ring.
    var requests: [URBRequest] { log.withLock { $0 } }

    init(_ hypervisor: any Hypervisor, _ path: DevicePath) {
        self.hypervisor = hypervisor
        self.path = path
    }

    func stop() { stopped.store(true, ordering: .relaxed) }

    /// Plugs a device in, or with nil the one that is there out.
    func plug(_ device: (any MemoryUSBDevice)?, _ port: USBPort) {
        devices.withLock { $0[port.number] = device }
        orders.withLock { $0.events.append(ConnectionResponse.words(id: 0, port, device?.speed ?? .none)) }
    }

    func write(_ keys: [(String, String)]) async throws {
        let path = path
        try await hypervisor.store.transaction { (store) throws(HypervisorFailure) in
            for (key, value) in keys { try store.write(path.key(key), value) }
        }
    }

    func key(_ name: String) async throws -> String? { try await hypervisor.store.read(path.frontendKey(name)) }

    /// Goes to 2, waits for the frontend's 4, serves until stopped.
    func run() async throws {
        try await write([("state", "2")])
        while try await key("state") != "4" {
            if stopped.load(ordering: .relaxed) { return }
            try await Task.sleep(for: .milliseconds(1))
        }
        let events = try hypervisor.openEventChannels()
        let remote = EventChannelPort(UInt32(try await key(BusKeys.eventChannel)!)!)
        let turn = try Turn(
            self,
            urbs: try await ring(USBKeys.urbRingReference),
            connections: try await ring(USBKeys.connectionRingReference),
            events,
            try events.bind(to: remote, of: path.domain)
        )
        try await write([("state", "4")])
        while !stopped.load(ordering: .relaxed) {
            if try turn.run() == 0 { try await Task.sleep(for: .microseconds(100)) }
        }
    }

    private func ring(_ name: String) async throws -> SharedPages {
        let reference = GrantReference(UInt32(try await key(name)!)!)
        return try hypervisor.grants.map([reference], of: path.domain, access: .readWrite)
    }

    /// The rings of one connection, and the URBs that wait for their device.
    private final class Turn: @unchecked Sendable {
        private let backend: MemoryUSBBackend
        private let memory: PrivatePages
        private var urbs: BackRing
        private var connections: BackRing
        private let events: any EventChannels
        private let port: EventChannelPort
        private var held: [(request: URBRequest, slot: [UInt8])] = []
        private var addresses: [UInt8: UInt8] = [:]
        /// Endpoints whose URBs wait to be unlinked, after a short one that was not okay.
        private var stopped: Set<Endpoint> = []

        private static let dataPlace = 8192
        private static let framePlace = 8192 + 65536

        init(
            _ backend: MemoryUSBBackend,
            urbs: SharedPages,
            connections: SharedPages,
            _ events: any EventChannels,
            _ port: EventChannelPort
        ) throws {
            (self.backend, self.events, self.port) = (backend, events, port)
            memory = try PrivatePages(byteCount: 8192 + 65536 + 65536)
            self.urbs = BackRing(pages: urbs, stride: USBWire.urbStride)
            self.connections = BackRing(pages: connections, stride: USBWire.connectionStride)
        }

        func run() throws -> Int {
            var work = try tell()
            _ = try urbs.poll()
            while urbs.waiting > 0 {
                work += 1
                let slot = memory.slot(at: 0, byteCount: USBWire.urbStride)
                urbs.takeNext(into: slot, count: USBWire.urbStride)
                try took(slot)
            }
            work += try serveHeld()
            if work > 0, urbs.publish() { events.notify(port) }
            _ = try urbs.lastLook()
            return work
        }

        /// Serves what its device has something for, in order for each endpoint.
        private func serveHeld() throws -> Int {
            var waiting: Set<Endpoint> = []
            var work = 0
            for (request, bytes) in held where !waiting.contains(Endpoint(request)) {
                memory.write(bytes, at: 0)
                if try serve(request, memory.slot(at: 0, byteCount: USBWire.urbStride)) {
                    held.removeAll { $0.request.id == request.id }
                    work += 1
                } else {
                    waiting.insert(Endpoint(request))
                }
            }
            return work
        }

        private struct Endpoint: Hashable {
            let port: USBPort
            let address: USBEndpointAddress
            init(_ request: URBRequest) { (port, address) = (request.port, request.endpoint) }
        }

        private func tell() throws -> Int {
            let waiting = backend.orders.withLock { orders in
                defer { orders.events = [] }
                return orders.events
            }
            guard !waiting.isEmpty else { return 0 }
            _ = try connections.poll()
            for event in waiting {
                let slot = memory.slot(at: 4096, byteCount: 4)
                connections.takeNext(into: slot, count: USBWire.connectionRequestSize)
                let words = WireWords(low: event.low | UInt64(slot.u16(0)), high: 0)
                connections.put(words, count: USBWire.connectionResponseSize)
            }
            if connections.publish() { events.notify(port) }
            return waiting.count
        }

        private func took(_ slot: Slot) throws {
            let request: URBRequest
            do throws(URBFault) { request = try URBRequest(validating: RawURB(slot), portCount: 31) } catch {
                return answer(URBResponse(id: RawURB(slot).id, error.status))
            }
            backend.log.withLock { $0.append(request) }
            if case .unlink(let id) = request.kind {
                guard let index = held.firstIndex(where: { $0.request.id == id }) else {
                    return answer(URBResponse(id: request.id, .notFound))
                }
                let endpoint = Endpoint(held.remove(at: index).request)
                if !held.contains(where: { Endpoint($0.request) == endpoint }) { stopped.remove(endpoint) }
                answer(URBResponse(id: id, .unlinked))
                return answer(URBResponse(id: request.id, .okay))
            }
            held.append((request, (0..<USBWire.urbStride).map { slot.u8($0) }))
        }

        private func answer(_ response: URBResponse) {
            let orders = backend.orders.withLock { $0 }
            var words = response.words
            if orders.liesAboutIDs { words.low |= 0xFF00 }
            urbs.put(words, count: USBWire.urbResponseSize)
            if orders.answersTwice, urbs.requestConsumer &- urbs.responseProducer > 0 {
                urbs.put(words, count: USBWire.urbResponseSize)
            }
        }

        /// - Returns: false if the device has nothing yet.
        private func serve(_ request: URBRequest, _ slot: Slot) throws -> Bool {
            guard let device = backend.devices.withLock({ $0[request.port.number] }) else {
                answer(URBResponse(id: request.id, .noDevice))
                return true
            }
            let endpoint = Endpoint(request)
            if stopped.contains(endpoint) { return false }
            // There is always one behind it; with it here the order of things is the same in every run.
            let others = held.count { Endpoint($0.request) == endpoint }
            if request.shortNotOK, others < 2 { return false }
            var data: [UInt8] = []
            if request.direction == .out {
                try copy(request, slot, into: false)
                let bytes = memory.slot(at: Turn.dataPlace, byteCount: request.byteCount)
                data = (0..<request.byteCount).map { bytes.u8($0) }
            }
            let reply: MemoryUSBAnswer?
            switch request.kind {
            case .control(let setup): reply = control(request, setup, device, data)
            case .isochronous:
                answer(try isochronous(request, slot, device, data))
                return true
            default: reply = device.transfer(request.endpoint, data, count: request.byteCount)
            }
            guard var result = reply else { return false }
            if request.direction == .in {
                result.bytes = Array(result.bytes.prefix(request.transferByteCount))
                memory.write(result.bytes, at: Turn.dataPlace)
                try copy(request, slot, into: true, count: result.bytes.count)
            }
            let count = request.direction == .in ? result.bytes.count : result.taken ?? data.count
            if request.shortNotOK, count < request.byteCount { stopped.insert(endpoint) }
            answer(URBResponse(id: request.id, result.status, byteCount: UInt32(count)))
            return true
        }

        private func control(
            _ request: URBRequest,
            _ setup: SetupPacket,
            _ device: any MemoryUSBDevice,
            _ data: [UInt8]
        ) -> MemoryUSBAnswer {
            let address = addresses[request.port.number] ?? 0
            if request.pipe.device == 0 { addresses[request.port.number] = 0 }
            guard request.pipe.device == 0 || request.pipe.device == address else {
                return MemoryUSBAnswer(status: .ioError)
            }
            switch USBControlRequest(setup) {
            case .setAddress(let address): addresses[request.port.number] = address
            case .getDescriptor(.device, index: 0, _): return .bytes(device.device)
            case .getDescriptor(.configuration, index: 0, _): return .bytes(device.configuration)
            case .refused: return .stall
            case .setConfiguration(let value) where value == device.configuration[5]: break
            default: return device.control(setup, data)
            }
            return .okay
        }

        private func isochronous(
            _ request: URBRequest,
            _ slot: Slot,
            _ device: any MemoryUSBDevice,
            _ data: [UInt8]
        ) throws -> URBResponse {
            let frames = memory.slot(at: Turn.framePlace, byteCount: request.frameByteCount)
            var place = Turn.framePlace
            for index in 0..<Int(request.frameSegmentCount) {
                let segment = request.frameSegment(index, in: slot)
                try copy(segment, false, place, Int(segment.length))
                place += Int(segment.length)
            }
            let packets = try IsochronousPackets(validating: frames, of: request)
            var (moved, failed) = (0, 0)
            for index in 0..<packets.count {
                let packet = packets.packet(index)
                let part = data.isEmpty ? [] : Array(data[packet.offset..<packet.offset + packet.byteCount])
                let result = device.transfer(request.endpoint, part, count: packet.byteCount)
                guard let result, result.status == .okay else {
                    packets.finish(index, byteCount: 0, .protocolError)
                    failed += 1
                    continue
                }
                if request.direction == .in { memory.write(result.bytes, at: Turn.dataPlace + packet.offset) }
                let count = request.direction == .in ? result.bytes.count : packet.byteCount
                packets.finish(index, byteCount: count, .okay)
                moved += count
            }
            if request.direction == .in { try copy(request, slot, into: true) }
            place = Turn.framePlace
            for index in 0..<Int(request.frameSegmentCount) {
                let segment = request.frameSegment(index, in: slot)
                try copy(segment, true, place, Int(segment.length))
                place += Int(segment.length)
            }
            return URBResponse(id: request.id, .okay, byteCount: UInt32(moved), errorCount: UInt32(failed))
        }

        private func copy(_ request: URBRequest, _ slot: Slot, into: Bool, count: Int? = nil) throws {
            var (place, left) = (Turn.dataPlace, count ?? request.byteCount)
            for index in 0..<Int(request.segmentCount) where left > 0 {
                let segment = request.segment(index, in: slot)
                let part = min(left, Int(segment.length))
                try copy(segment, into, place, part)
                place += part
                left -= part
            }
        }

        private func copy(_ segment: URBSegment, _ into: Bool, _ place: Int, _ count: Int) throws {
            guard count > 0 else { return }
            var batch = GrantCopyBatch(capacity: 1)
            batch.add(
                reference: segment.reference,
                pageOffset: segment.offset,
                byteCount: UInt16(count),
                intoGrant: into,
                pages: memory,
                privateOffset: place
            )
            try backend.hypervisor.grants.copy(&batch, with: backend.path.domain)
            guard batch.status(of: 0) == .okay else { throw HypervisorFailure("copy", .ioError) }
        }
    }
}
