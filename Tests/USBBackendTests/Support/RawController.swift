// A controller whose frontend has no manners: any bytes in any slot of its two rings.

internal import FrontendDrivers
internal import Hypervisor
internal import SharedRing
internal import SimulatedHost
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
    private let frontend: RawUSBFrontend
    private let rings: RawUSBRings
    let pages: SharedGrant
    let readOnly: SharedGrant
    private let memory: Mutex<PrivatePages>

    init(_ scene: USBScene) async throws {
        self.scene = scene
        frontend = RawUSBFrontend(scene.guest, index: scene.nodes.path.index)
        rings = try await frontend.makeRings()
        pages = try await frontend.makePages(RawController.pageCount)
        readOnly = try await frontend.makePages(1, access: .readOnly)
        memory = Mutex(try PrivatePages(byteCount: 65536))
    }

    var connections: RawRing { rings.connections }

    /// Connects as xen-hcd would.
    /// - Parameters:
    ///   - posted: requests on the connection ring.
    ///   - keys: written behind the usual ones; nil removes one.
    func connect(posting posted: UInt32 = 512, adding keys: [(String, String?)] = []) async throws {
        rings.connections.requestProducer = posted
        try await frontend.connect(rings, adding: keys, requests: 0)
    }

    func notify() { rings.urbs.notify() }

    var requestProducer: UInt32 {
        get { rings.urbs.requestProducer }
        set { rings.urbs.requestProducer = newValue }
    }
    var responseProducer: UInt32 { rings.urbs.responseProducer }

    /// Writes a request into the slot of this index; visible once the producer is beyond it.
    func put(_ urb: RawRequest, at index: UInt32) {
        let bytes = RawUSBRings.request(
            id: urb.id,
            USBPipe(rawValue: urb.pipe),
            urb.specifics,
            segments: urb.segments,
            segmentCount: urb.segmentCount,
            byteCount: urb.byteCount,
            flags: urb.flags
        )
        rings.urbs.put(bytes, at: index)
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

    func answer(at index: UInt32) -> URBResponse { rings.answer(at: index) }

    /// What the connection ring says.
    func event(at index: UInt32) -> ConnectionResponse { rings.event(at: index) }
    var eventsSaid: UInt32 { rings.connections.responseProducer }

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
