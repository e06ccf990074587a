// Both ends of a netchannel2 link on the same pages.

import SharedRing
import XenWire

/// Three sets of pages, and private memory for one message of each end.
final class MessageLink<Layout: NetChannel2ControlLayout> {
    let control = makePages(1)
    let frontendPayload: SharedPages
    let backendPayload: SharedPages
    var front: MessageRing<Layout>
    var back: MessageRing<Layout>
    let memory: PrivatePages

    /// - Parameter start: where all indices begin.
    init(orders: (UInt32, UInt32) = (0, 0), startingAt start: UInt32 = 0) throws {
        let (control, frontendPayload) = (control, makePages(1 << Int(orders.0)))
        let backendPayload = makePages(1 << Int(orders.1))
        (self.frontendPayload, self.backendPayload) = (frontendPayload, backendPayload)
        for ring in [NetChannel2End.frontend, .backend] {
            control.storeRelease(start, at: Layout.producer(ring))
            control.storeRelease(start, at: Layout.consumer(ring))
        }
        func end(_ end: NetChannel2End) -> MessageRing<Layout> {
            MessageRing(
                control: control,
                frontendPayload: frontendPayload,
                backendPayload: backendPayload,
                end: end,
                consumed: start,
                produced: start
            )
        }
        front = end(.frontend)
        back = end(.backend)
        memory = try PrivatePages(byteCount: 8192)
    }

    /// Private memory of the end that sends, and of the one that takes.
    func sent(_ byteCount: Int) -> Slot { memory.slot(at: 0, byteCount: byteCount) }
    var taken: Slot { memory.slot(at: 4096, byteCount: 4096) }

    // What `#expect` cannot call on a noncopyable member. The frontend sends, the backend takes.
    func hasRoom(_ byteCount: UInt32, _ room: MessageRoom = .ordinary) throws -> Bool {
        try front.outgoing.hasRoom(for: byteCount, room)
    }
    func hasRoomForShort(_ count: UInt32) throws -> Bool { try front.outgoing.hasRoom(forShort: count) }
    func reserve(_ byteCount: UInt32) throws -> Bool { try front.outgoing.reserve(byteCount) }
    func publish() -> Bool { front.outgoing.publish() }
    func waitForRoom() throws -> Bool { try front.outgoing.waitForRoom() }
    func poll() throws -> UInt32 { try back.incoming.poll() }
    func next() throws -> NetChannel2Header { try back.incoming.next() }
    func release() -> Bool { back.incoming.release() }
    func lastLook() throws -> UInt32 { try back.incoming.lastLook() }
    var produced: UInt32 { front.outgoing.produced }
    var consumed: UInt32 { back.incoming.consumed }
    var waiting: UInt32 { back.incoming.waiting }

    /// Puts a message of `byteCount` bytes, all of them `byte`.
    func put(_ byteCount: Int, type: UInt8 = 2, filledWith byte: UInt8) {
        let slot = sent(byteCount)
        for offset in 0..<byteCount { slot.set8(byte, at: offset) }
        slot.set32(NetChannel2Header(NetChannel2MessageType(rawValue: type), size: byteCount).word, at: 0)
        front.outgoing.put(slot)
    }

    /// Takes the next message that is no PAD; nil if none waits.
    func take() throws -> [UInt8]? {
        while true {
            if back.incoming.waiting == 0, try back.incoming.poll() == 0 { return nil }
            let header = try back.incoming.next()
            if header.type == .pad {
                back.incoming.skip(header)
                continue
            }
            return back.incoming.take(header, into: taken).bytes
        }
    }
}
