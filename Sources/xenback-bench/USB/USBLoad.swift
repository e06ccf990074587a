// A guest that does nothing but URBs: one thread, all pages granted before it begins, nothing allocated while it runs.

internal import BackendCore
internal import CBench
internal import CLinux
internal import FrontendDrivers
internal import Hypervisor
internal import SharedRing
internal import XenWire

/// The frontend's end of one connected controller with a device in port 1. Not thread-safe; it keeps its thread busy.
struct USBLoad: ~Copyable {
    private static let address: UInt8 = 1

    private let raw: RawUSBRings
    private var front: FrontRing
    private let data: SharedGrant
    private let port: USBPort
    /// A request for each place, and one response.
    private let slots: PrivatePages
    private var began: [UInt64]
    private var free: [Int]

    /// Grants everything. Connect after this: it initialises the ring's shared half.
    init(_ rings: RawUSBRings, data: SharedGrant, port: USBPort) throws {
        slots = try PrivatePages(byteCount: (USBWire.urbSlots + 1) * USBWire.urbStride)
        self.data = data
        self.port = port
        raw = rings
        began = [UInt64](repeating: 0, count: USBWire.urbSlots)
        free = []
        front = FrontRing(pages: rings.urbs.grant.pages, stride: USBWire.urbStride)
    }

    /// Pages of data that `init` wants.
    static var pageCount: Int { USBWire.urbSlots * USBWire.maxSegments }

    /// Gives the device its address and its configuration.
    mutating func setUp() throws {
        try control(SetupPacket(0x00, 5, value: UInt16(Self.address)), device: 0)
        try control(SetupPacket(0x00, 9, value: 1), device: Self.address)
    }

    private mutating func control(_ setup: SetupPacket, device: UInt8) throws {
        // The device may not have been found yet.
        for _ in 0..<500 {
            let slot = slots.slot(at: 0, byteCount: USBWire.urbStride)
            RawURB(slot).encode(id: 0, USBPipe(port, .control, device: device, .out), .control(setup))
            front.put(request: slot, count: USBWire.urbStride)
            if front.push() { raw.urbs.notify() }
            _ = try waitForAnswers(true)
            if takeResponse().status == .okay { return }
            _ = linux_is_readable(raw.urbs.events.descriptor, 10)
        }
        throw BenchFailure("the device does not answer")
    }

    /// Runs one load for `nanoseconds`.
    mutating func run(_ load: USBWorkload, nanoseconds: UInt64) throws -> BlockFigures {
        prepare(load)
        var samples = [UInt64](repeating: 0, count: BlockWorkload.sampleCount)
        let before = bench_counts().allocations
        let start = MonotonicClock.nanoseconds
        var done = 0
        while true {
            let now = MonotonicClock.nanoseconds
            if now &- start < nanoseconds { put(now) }
            if front.push() { raw.urbs.notify() }
            let answers = try waitForAnswers(now &- start < nanoseconds || free.count < load.depth)
            if answers == 0 { break }
            let end = MonotonicClock.nanoseconds
            for _ in 0..<answers {
                let place = try take(load)
                samples[done & (BlockWorkload.sampleCount - 1)] = end &- began[place]
                free.append(place)
                done += 1
            }
        }
        let end = MonotonicClock.nanoseconds
        let allocations = bench_counts().allocations &- before
        samples.removeLast(max(0, samples.count - done))
        return BlockFigures(requests: done, nanoseconds: end &- start, samples: samples, allocations: allocations)
    }

    /// Writes each place's request.
    private mutating func prepare(_ load: USBWorkload) {
        free = Array((0..<load.depth).reversed())
        free.reserveCapacity(USBWire.urbSlots)
        for place in 0..<load.depth {
            let segments = (0..<load.pages).map { page in
                URBSegment(
                    data.references[place * USBWire.maxSegments + page],
                    offset: 0,
                    length: UInt16(min(4096, load.bytes - page * 4096))
                )
            }
            RawURB(slots.slot(at: place * USBWire.urbStride, byteCount: USBWire.urbStride)).encode(
                id: UInt16(place),
                load.pipe(port, device: Self.address),
                load.specifics,
                segments: segments
            )
        }
    }

    private mutating func put(_ now: UInt64) {
        while let place = free.popLast() {
            front.put(
                request: slots.slot(at: place * USBWire.urbStride, byteCount: USBWire.urbStride),
                count: USBWire.urbStride
            )
            began[place] = now
        }
    }

    /// Sleeps until there are answers; 0 if none are expected.
    private mutating func waitForAnswers(_ areExpected: Bool) throws -> Int {
        var waiting = try front.poll()
        while waiting == 0, areExpected {
            waiting = try front.lastLook()
            if waiting > 0 { break }
            guard linux_is_readable(raw.urbs.events.descriptor, 5000) else {
                throw BenchFailure("no answer within 5 s")
            }
            while let port = raw.urbs.events.takePending() { raw.urbs.events.unmask(port) }
            waiting = try front.poll()
        }
        return Int(waiting)
    }

    private mutating func takeResponse() -> URBResponse {
        let slot = slots.slot(at: USBWire.urbSlots * USBWire.urbStride, byteCount: USBWire.urbResponseSize)
        front.takeNext(into: slot, count: USBWire.urbResponseSize)
        return URBResponse(decoding: slot)
    }

    private mutating func take(_ load: USBWorkload) throws -> Int {
        let response = takeResponse()
        guard response.status == .okay, response.byteCount == load.bytes, Int(response.id) < USBWire.urbSlots else {
            throw BenchFailure("an URB was not answered with okay and all its bytes: \(response)")
        }
        return Int(response.id)
    }
}
