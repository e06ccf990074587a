// The ring on which a frontend hears of its ports.

internal import BackendCore
internal import SharedRing
internal import XenWire

/// The backend's end of one connection ring: a request is taken only when there is something to say, and is answered at
/// once.
///
/// So it needs no journal: a successor goes on at `rsp_prod`. A request whose answer was put and not published is taken
/// again; the answer has left its id where it was.
struct USBConnectionRing: ~Copyable {
    private var ring: BackRing
    /// Where one request is copied to.
    private let slot: Slot

    /// - Parameters:
    ///   - slot: of at least `USBWire.connectionStride` bytes, ours alone.
    ///   - published: `rsp_prod`; 0 for a new ring.
    init(pages: SharedPages, slot: Slot, published: UInt32) {
        ring = BackRing(
            pages: pages,
            stride: USBWire.connectionStride,
            consumed: published,
            produced: published
        )
        self.slot = slot
    }

    /// Says what there is to say, as far as the frontend has posted requests for it. If it has not, it is asked to tell
    /// when it has.
    /// - Returns: how many events were said, and whether the frontend wants to be notified.
    mutating func announce(_ events: inout USBPortEvents) throws(Breakdown) -> (count: Int, notify: Bool) {
        do throws(RingFault) { return try say(&events) } catch { throw .frontend("\(error)") }
    }

    private mutating func say(_ events: inout USBPortEvents) throws(RingFault) -> (count: Int, notify: Bool) {
        guard events.next() != nil else { return (0, false) }
        _ = try ring.poll()
        var count = 0
        while let (port, speed) = events.next() {
            if ring.waiting == 0, try ring.lastLook() == 0 { break }
            ring.takeNext(into: slot, count: USBWire.connectionRequestSize)
            let request = ConnectionRequest(decoding: slot)
            ring.put(ConnectionResponse.words(id: request.id, port, speed), count: USBWire.connectionResponseSize)
            events.said(port, speed)
            count &+= 1
        }
        return (count, count > 0 ? ring.publish() : false)
    }
}
