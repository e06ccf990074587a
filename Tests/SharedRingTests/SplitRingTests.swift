// A split virtqueue's two ends on one memory: order, wrap, who is told when, and a device that lies.

import SharedRing
import Testing

/// Both ends of a ring of 16.
private struct Queue: ~Copyable {
    let pages: PrivatePages
    var driver: SplitRing
    var device: SplitRingServer

    init(usesEventIndex: Bool) throws {
        pages = try PrivatePages(byteCount: 4096)
        let layout = SplitRingLayout(size: 16, at: 64)
        driver = SplitRing(pages, layout, usesEventIndex: usesEventIndex)
        // SAFETY: parts of the pages, which live as long as this queue.
        device = unsafe SplitRingServer(
            descriptors: pages.unsafeAddress(at: layout.descriptors, count: 256),
            available: pages.unsafeAddress(at: layout.available, count: 38),
            used: pages.unsafeAddress(at: layout.used, count: 134),
            size: 16,
            usesEventIndex: usesEventIndex
        )
        for index in 0..<16 {
            driver.setDescriptor(index, address: UInt64(index) << 12, byteCount: 100 + index, isWritable: true)
        }
    }
}

extension Queue {
    /// The device uses the next buffer, which there is.
    mutating func use(_ count: Int = 1, byteCount: UInt32 = 1) {
        for _ in 0..<count {
            guard let (head, _) = device.take() else { return }
            device.put(head: UInt32(head), byteCount: byteCount)
        }
    }

    mutating func give(_ heads: Range<Int>) -> Bool {
        for head in heads { driver.add(head: head) }
        return driver.publish()
    }
}

@Suite struct SplitRingTests {
    /// So often round that the indices of 16 bits wrap, too.
    @Test(arguments: [false, true])
    func buffersComeBackInOrder(usesEventIndex: Bool) throws {
        var queue = try Queue(usesEventIndex: usesEventIndex)
        var (given, back, seen) = (0, 0, 0)
        var generator = SystemRandomNumberGenerator()
        while back < 70_000 {
            for _ in 0..<Int.random(in: 0...16, using: &generator) where queue.driver.outstanding < 16 {
                queue.driver.add(head: given & 15)
                given += 1
            }
            _ = queue.driver.publish()
            for _ in 0..<Int.random(in: 0...16, using: &generator) {
                guard let (head, pieces) = queue.device.take() else { break }
                #expect(Int(head) == seen & 15)
                #expect(pieces == [.init(address: UInt64(head) << 12, byteCount: 100 + Int(head), isWritable: true)])
                queue.device.put(head: UInt32(head), byteCount: UInt32(seen & 63))
                seen += 1
            }
            _ = queue.device.announce()
            let used = try queue.driver.usedCount()
            #expect(used == seen - back)
            for index in 0..<used {
                let bytes = try queue.driver.usedBytes(index, head: (back + index) & 15)
                #expect(bytes == UInt32((back + index) & 63))
            }
            queue.driver.take(used)
            back += used
            let outstanding = queue.driver.outstanding
            #expect(outstanding == given - back)
        }
    }

    @Test func aBufferOfSeveralDescriptors() throws {
        var queue = try Queue(usesEventIndex: true)
        queue.driver.setDescriptor(15, address: 7, byteCount: 12, isWritable: false, next: 0)
        queue.driver.setDescriptor(0, address: 1 << 40, byteCount: 4096, isWritable: false)
        queue.driver.add(head: 15)
        _ = queue.driver.publish()
        let taken = queue.device.take()
        let buffer = try #require(taken)
        #expect(buffer.head == 15)
        #expect(
            buffer.pieces == [
                .init(address: 7, byteCount: 12, isWritable: false),
                .init(address: 1 << 40, byteCount: 4096, isWritable: false),
            ]
        )
    }

    /// A device that works is not kicked, one that asked for it is, once; the same for calls.
    @Test(arguments: [false, true])
    func nobodyIsToldWhoDidNotAsk(usesEventIndex: Bool) throws {
        var queue = try Queue(usesEventIndex: usesEventIndex)
        var isMore = queue.device.askForKick()
        #expect(!isMore)
        let kicks = queue.give(0..<1)
        #expect(kicks, "it asked")
        queue.device.silence()
        let kicksAgain = queue.give(1..<4)
        #expect(!kicksAgain, "it works")
        var wantsMore = queue.driver.wantsMore
        #expect(!wantsMore)
        queue.use(4)
        queue.driver.silence()
        // Asked for a call at the third.
        var used = try queue.driver.lastLook(for: 3)
        #expect(used == 0)
        isMore = queue.device.askForKick()
        wantsMore = queue.driver.wantsMore
        #expect(!isMore && wantsMore)
        let calls = queue.device.announce()
        #expect(calls)
        used = try queue.driver.usedCount()
        #expect(used == 4)
        queue.driver.take(4)
        queue.driver.silence()
        _ = queue.give(4..<5)
        queue.use()
        let callsAgain = queue.device.announce()
        #expect(!callsAgain, "nobody asked since")
        used = try queue.driver.lastLook(for: 1)
        #expect(used == 1, "there is one already")
    }

    /// More than was given, far more, backwards.
    @Test(arguments: [1, 2, 15, 16, 1000, 0x8000, 0xFFFF] as [UInt16])
    func aUsedIndexThatJumps(lie: UInt16) throws {
        var queue = try Queue(usesEventIndex: true)
        _ = queue.give(0..<3)
        queue.use(3)
        _ = queue.device.announce(lie: lie)
        var fault: SplitRingFault?
        do throws(SplitRingFault) { _ = try queue.driver.usedCount() } catch { fault = error }
        if lie == 0xFFFF {
            // Two of three: that is no lie that anybody could see.
            #expect(fault == nil)
        } else {
            #expect(fault == .jumped(used: 3 &+ lie, outstanding: 3))
        }
    }

    /// Not posted, posted and not its turn, no descriptor at all.
    @Test(arguments: [1, 15, 16, 0xFFFF, UInt32.max])
    func aBufferThatWasNotGiven(id: UInt32) throws {
        var queue = try Queue(usesEventIndex: false)
        for head in 0..<2 { queue.driver.add(head: head) }
        _ = queue.driver.publish()
        _ = queue.device.take()
        queue.device.put(head: id, byteCount: 1)
        _ = queue.device.announce()
        let used = try queue.driver.usedCount()
        #expect(used == 1)
        var fault: SplitRingFault?
        do throws(SplitRingFault) { _ = try queue.driver.usedBytes(0, head: 0) } catch { fault = error }
        #expect(fault == .notPosted(id: id, expected: 0))
    }

    @Test func mirroredPagesGoRound() throws {
        let pages = try PrivatePages.mirrored(byteCount: 8192)
        #expect(pages.byteCount == 16384)
        pages.slot(at: 8190, byteCount: 4).set32(0x0403_0201, at: 0)
        #expect(pages.slot(at: 0, byteCount: 2).u16(0) == 0x0403)
        #expect(pages.slot(at: 16382, byteCount: 2).u16(0) == 0x0201)
    }
}
