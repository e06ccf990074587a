// Both ends of a ring on the same pages.

import Glibc
import SharedRing
import XenWire

/// Fresh shared pages without a hypervisor.
func makePages(_ count: Int) -> SharedPages {
    let byteCount = count * SharedPages.pageSize
    let address = unsafe mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)!
    // SAFETY: a mapping of `byteCount` bytes that nobody else unmaps.
    nonisolated(unsafe) let base = unsafe address
    return unsafe SharedPages(base: base, byteCount: byteCount) { _ = unsafe munmap(base, byteCount) }
}

/// A ring whose requests and responses begin with a 32-bit number, and private slots for both ends.
final class RingPair {
    var front: FrontRing
    var back: BackRing
    let memory: PrivatePages
    let stride: Int

    init(pageCount: Int = 1, stride: Int = 112, startingAt index: UInt32 = 0) throws {
        let pages = makePages(pageCount)
        front = FrontRing(pages: pages, stride: stride, startingAt: index)
        back = BackRing(pages: pages, stride: stride, consumed: index, produced: index)
        memory = try PrivatePages(byteCount: 4096)
        self.stride = stride
    }

    var request: Slot { memory.slot(at: 0, byteCount: stride) }
    var taken: Slot { memory.slot(at: 2048, byteCount: stride) }

    // What `#expect` cannot call on a noncopyable member.
    func push() -> Bool { front.push() }
    func publish() -> Bool { back.publish() }
    func pollBack() throws -> UInt32 { try back.poll() }
    func pollFront() throws -> UInt32 { try front.poll() }
    func lookBack(for wanted: UInt32 = 1) throws -> UInt32 { try back.lastLook(for: wanted) }
    func lookFront() throws -> UInt32 { try front.lastLook() }
    var waiting: UInt32 { back.waiting }
    var consumed: UInt32 { back.requestConsumer }
    var asked: UInt32 { front.requestProducer }
    var heard: UInt32 { front.responseConsumer }
    var free: UInt32 { front.free }
    var pages: SharedPages { front.pages }

    func ask(_ number: UInt32) {
        request.set32(number, at: 0)
        front.put(request: request, count: stride)
    }

    /// Takes one request at the back.
    func take() throws -> UInt32? {
        if back.waiting == 0, try back.poll() == 0 { return nil }
        back.takeNext(into: taken, count: stride)
        return taken.u32(0)
    }

    func answer(_ number: UInt32) {
        back.put(WireWords(low: UInt64(number), high: 0), count: 16)
    }

    /// Takes one response at the front.
    func hear() throws -> UInt32? {
        if front.waiting == 0, try front.poll() == 0 { return nil }
        front.takeNext(into: taken, count: min(16, stride))
        return taken.u32(0)
    }
}
