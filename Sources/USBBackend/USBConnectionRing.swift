// The ring on which a frontend learns of its ports.

internal import BackendCore
internal import SharedRing
internal import XenWire

/// The backend's end of one connection ring: a request is taken only when there is an event to report, and is answered
/// at once.
///
/// So it needs no journal: a successor continues at `rsp_prod`. A request whose answer was put but not published is
/// taken again; the answer has left its id in place.
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

    /// Reports pending events, as far as the frontend has posted requests for them. If it has not, asks for an event
    /// when it does.
    /// - Returns: how many events were reported, and whether the frontend asked to be notified.
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
