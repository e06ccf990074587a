// A controller whose frontend has no manners: any bytes in any slot of its two rings.

internal import FrontendDrivers
internal import Hypervisor
internal import SharedRing
internal import SimulatedHypervisor
internal import Synchronization
internal import TestSupport
internal import Testing
internal import XenWire

@testable internal import USBBackend

/// The frontend of hostile tests: no flow control, no state. It has 24 pages, the last of which are read-only.
final class RawController: Sendable {
    static let pageCount = 24
    let scene: USBScene
    let bus: FrontendBus
    let urbs: SharedGrant
    let connections: SharedGrant
    let pages: SharedGrant
    let readOnly: SharedGrant
    let events: any EventChannels
    let port: EventChannelPort
    private let memory: Mutex<PrivatePages>

    init(_ scene: USBScene) async throws {
        self.scene = scene
        bus = FrontendBus(store: scene.guest.store, path: "device/vusb/\(scene.nodes.path.index)")
        let sharing = scene.guest.sharing
        urbs = try sharing.share(pageCount: 1, with: .initial, access: .readWrite)
        connections = try sharing.share(pageCount: 1, with: .initial, access: .readWrite)
        pages = try sharing.share(pageCount: RawController.pageCount, with: .initial, access: .readWrite)
        readOnly = try sharing.share(pageCount: 1, with: .initial, access: .readOnly)
        events = try scene.guest.openEventChannels()
        port = try events.allocate(for: .initial)
        memory = Mutex(try PrivatePages(byteCount: 65536))
        for grant in [urbs, connections] {
            grant.pages.storeRelease(1, at: RingLayout.requestEvent)
            grant.pages.storeRelease(1, at: RingLayout.responseEvent)
        }
    }

    var keys: [(String, String?)] {
        [
            (USBKeys.urbRingReference, "\(urbs.references[0].rawValue)"),
            (USBKeys.connectionRingReference, "\(connections.references[0].rawValue)"),
            (BusKeys.eventChannel, "\(port.rawValue)"),
        ]
    }

    /// Connects as xen-hcd would.
    /// - Parameters:
    ///   - posted: requests on the connection ring.
    ///   - keys: written behind the usual ones; nil removes one.
    func connect(posting posted: UInt32 = 512, adding keys: [(String, String?)] = []) async throws {
        let backend = try await bus.backend().path
        _ = try await bus.wait(for: [.initWait], of: backend)
        connections.pages.storeRelease(posted, at: RingLayout.requestProducer)
        try await bus.publish(self.keys + keys)
        try await bus.publish(.connected)
        let state = try await bus.wait(for: [.connected, .closing, .closed], of: backend)
        guard state == .connected else { throw FrontendFailure.timedOut(waitingFor: [.connected], saw: state) }
    }

    func notify() { events.notify(port) }

    var requestProducer: UInt32 {
        get { urbs.pages.loadAcquire(at: RingLayout.requestProducer) }
        set { urbs.pages.storeRelease(newValue, at: RingLayout.requestProducer) }
    }
    var responseProducer: UInt32 { urbs.pages.loadAcquire(at: RingLayout.responseProducer) }

    /// Writes a request into the slot of the next index; visible after `send`.
    func put(_ urb: RawRequest, at index: UInt32) {
        memory.withLock { memory in
            let slot = memory.slot(at: 0, byteCount: USBWire.urbStride)
            RawURB(slot).encode(
                id: urb.id,
                USBPipe(rawValue: urb.pipe),
                urb.specifics,
                segments: urb.segments,
                segmentCount: urb.segmentCount,
                byteCount: urb.byteCount,
                flags: urb.flags
            )
            let place = RingLayout.slots + Int(index % UInt32(USBWire.urbSlots)) * USBWire.urbStride
            urbs.pages.copyIn(at: place, count: USBWire.urbStride, from: memory, at: 0)
        }
    }

    /// Sends requests and waits for as many answers.
    /// - Returns: the answers in the order of the ring; empty if they do not come.
    func perform(_ requests: [RawRequest], within limit: Duration = .seconds(10)) async -> [URBResponse] {
        let first = requestProducer
        for (place, request) in requests.enumerated() { put(request, at: first &+ UInt32(place)) }
        requestProducer = first &+ UInt32(requests.count)
        notify()
        let end = first &+ UInt32(requests.count)
        let came = await eventually(within: limit) { self.responseProducer == end }
        guard came else { return [] }
        return (first..<end).map { answer(at: $0) }
    }

    func answer(at index: UInt32) -> URBResponse {
        memory.withLock { memory in
            let place = RingLayout.slots + Int(index % UInt32(USBWire.urbSlots)) * USBWire.urbStride
            urbs.pages.copyOut(at: place, count: USBWire.urbResponseSize, to: memory, at: 0)
            return URBResponse(decoding: memory.slot(at: 0, byteCount: USBWire.urbResponseSize))
        }
    }

    /// What the connection ring says.
    func event(at index: Int) -> ConnectionResponse {
        memory.withLock { memory in
            let place = RingLayout.slots + index * USBWire.connectionStride
            connections.pages.copyOut(at: place, count: USBWire.connectionStride, to: memory, at: 0)
            return ConnectionResponse(decoding: memory.slot(at: 0, byteCount: USBWire.connectionStride))
        }
    }
    var eventsSaid: UInt32 { connections.pages.loadAcquire(at: RingLayout.responseProducer) }

    /// Puts bytes at the start of a page of ours.
    func fill(_ page: Int, _ bytes: [UInt8]) {
        memory.withLock { memory in
            memory.write(bytes, at: 0)
            pages.pages.copyIn(at: page * 4096, count: bytes.count, from: memory, at: 0)
        }
    }

    func bytes(_ page: Int, _ count: Int) -> [UInt8] {
        memory.withLock { memory in
            pages.pages.copyOut(at: page * 4096, count: count, to: memory, at: 0)
            let slot = memory.slot(at: 0, byteCount: count)
            return (0..<count).map { slot.u8($0) }
        }
    }

    func segment(_ page: Int, offset: UInt16 = 0, length: UInt16 = 4096) -> URBSegment {
        URBSegment(pages.references[page], offset: offset, length: length)
    }
}

/// A request in which everything can be wrong.
struct RawRequest: Sendable {
    var id: UInt16 = 0
    var pipe: UInt32
    var specifics = RawURBSpecifics.bulk
    var segments: [URBSegment] = []
    var segmentCount: UInt16?
    var byteCount: UInt16?
    var flags: UInt16 = 0

    init(_ id: UInt16, _ pipe: UInt32) {
        self.id = id
        self.pipe = pipe
    }

    static func pipe(
        _ type: USBTransferType,
        port: UInt32 = 1,
        device: UInt32 = 5,
        endpoint: UInt32 = 0,
        _ direction: USBDirection
    ) -> UInt32 {
        port | (direction == .in ? 0x80 : 0) | device << 8 | endpoint << 15 | UInt32(type.rawValue) << 30
    }
}
