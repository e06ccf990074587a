// A queue on the double of vhost-net: packets both ways, back pressure, refusals, and a kernel that lies.

import CLinux
import Glibc
import HostIO
import SharedRing
import SimulatedHost
import SystemPackage
import TestSupport
import Testing

@testable import HostNetwork

/// A port, and the other end of its interface.
private final class Bed {
    let vhost = SimulatedVhost()
    let queue: PacketQueue
    let end: PacketQueue
    let port: VhostPort
    /// Slots that the frontend has.
    var slots = 256

    init(_ features: VhostFeatures = [.version1, .mergeable, .eventIndex]) throws {
        vhost.offer(features)
        (queue, end) = Bed.pair()
        port = try VhostPort(queue, vhost)
        port.endReceiving(slots: slots)
    }

    static func pair() -> (PacketQueue, PacketQueue) {
        var ends: [CInt] = [-1, -1]
        let type = CInt(SOCK_SEQPACKET.rawValue) | CInt(SOCK_NONBLOCK.rawValue) | CInt(SOCK_CLOEXEC.rawValue)
        #expect(unsafe socketpair(AF_UNIX, type, 0, &ends) == 0)
        for end in ends { unix_widen(end, 4 << 20) }
        return (PacketQueue(OpenFile(adopting: ends[0])), PacketQueue(OpenFile(adopting: ends[1])))
    }

    /// Frames of this size, told apart by their number.
    static func frame(_ number: Int, _ byteCount: Int) -> [UInt8] {
        (0..<byteCount).map { UInt8(truncatingIfNeeded: number &* 7 &+ $0 &* 31 &+ $0 >> 8) }
    }

    /// Sends a frame in pieces, as a guest grants it.
    func send(_ frame: [UInt8], pieces sizes: [Int]) {
        var (start, places): (Int, [(Int, Int)]) = (0, [])
        for (index, size) in sizes.enumerated() {
            let offset = port.place(size, isFirst: index == 0)
            #expect(offset & 4095 + size <= 4096, "in one page")
            port.sendPages.write(Array(frame[start..<start + size]), at: offset)
            places.append((offset, size))
            start += size
        }
        let header = port.beginPacket(first: places[0].0)
        header.set64(0, at: 0)
        header.set16(0, at: 8)
        for (offset, size) in places { port.add(offset, size) }
        port.endPacket()
    }

    /// Pieces of at most a page.
    static func pieces(_ byteCount: Int) -> [Int] {
        var (rest, sizes): (Int, [Int]) = (byteCount, [])
        while rest > 0 {
            sizes.append(min(rest, sizes.isEmpty ? 1000 : 4096))
            rest -= sizes.last ?? 0
        }
        return sizes
    }

    /// What came; nothing is kept.
    func receive() throws -> [[UInt8]] {
        let count = try port.receive(upTo: 64)
        let frames = (0..<count).compactMap { port.packet($0) }.map { packet in
            port.receivePages.slot(at: packet.frame, byteCount: packet.byteCount).bytes
        }
        port.endReceiving(slots: slots)
        return frames
    }

    func give(_ frame: [UInt8]) -> Bool {
        let packet = Packet(bytes: [UInt8](repeating: 0, count: PacketQueue.headerBytes) + frame)
        return end.put(packet) == packet.bytes.count
    }
}

extension VhostFeatures {
    fileprivate static let old: VhostFeatures = [.version1, .mergeable]
    fileprivate static let new: VhostFeatures = [.version1, .mergeable, .eventIndex]
}

@Suite(.serialized, .timeLimit(.minutes(4))) struct VhostTests {
    static let sizes = [14, 60, 1514, 4084, 4085, 4096, 9000, 65_557]

    /// So many that the areas and the rings go round, all sizes mixed.
    @Test(arguments: [VhostFeatures.old, .new])
    func packetsToTheHost(features: VhostFeatures) async throws {
        let bed = try Bed(features)
        var (sent, came) = (0, 0)
        let total = 400
        try await until(within: .seconds(110)) {
            try bed.port.beginSending()
            while sent < total, bed.port.room == .some {
                let size = VhostTests.sizes[sent % VhostTests.sizes.count]
                bed.send(Bed.frame(sent, size), pieces: Bed.pieces(size))
                sent += 1
            }
            bed.port.send()
            while let packet = bed.end.take(milliseconds: 0) {
                let frame = Bed.frame(came, VhostTests.sizes[came % VhostTests.sizes.count])
                guard Array(packet.frame) == frame else { throw HostFailure(.host, "packet \(came) is another") }
                came += 1
            }
            return came == total
        }
        // All of it is free again.
        try await until {
            try bed.port.beginSending()
            return bed.port.progress == (0, UInt64(total))
        }
    }

    @Test(arguments: [VhostFeatures.old, .new], [0, 64])
    func packetsFromTheHost(features: VhostFeatures, batch: Int) async throws {
        let bed = try Bed(features)
        bed.vhost.announce(every: batch)
        var (given, came) = (0, 0)
        let total = 400
        try await until(within: .seconds(110)) {
            while given < total, bed.give(Bed.frame(given, VhostTests.sizes[given % VhostTests.sizes.count])) {
                given += 1
            }
            for frame in try bed.receive() {
                guard frame == Bed.frame(came, VhostTests.sizes[came % VhostTests.sizes.count]) else {
                    throw HostFailure(.host, "packet \(came) is another")
                }
                came += 1
            }
            return came == total
        }
        #expect(try !bed.port.lastLookForPackets())
    }

    /// The kernel's thread can reach two areas and two rings.
    @Test func theMemoryThatTheKernelKnows() throws {
        let bed = try Bed()
        let regions = bed.vhost.regions
        #expect(regions.map(\.byteCount) == [2 << 20, 1 << 20])
        #expect(bed.port.sendPages.byteCount == 2 << 20 && bed.port.receivePages.byteCount == 2 << 20)
        let starts = [bed.port.sendPages, bed.port.receivePages].map {
            unsafe UInt64(UInt(bitPattern: $0.unsafeAddress(at: 0, count: 1)))
        }
        #expect(regions.map(\.address) == starts)
    }

    /// One page for each slot that the frontend has: what it has none for stays in the interface's own queue.
    @Test func theHostGetsNoMorePagesThanTheFrontendHas() async throws {
        let bed = try Bed()
        bed.slots = 2
        _ = try? bed.receive()
        // What was given before is used up first.
        for number in 0..<256 { #expect(bed.give(Bed.frame(number, 60))) }
        var came = 0
        try await until {
            came += try bed.receive().count
            return came == 256
        }
        for number in 0..<5 { #expect(bed.give(Bed.frame(number, 60))) }
        try await until { try bed.port.receive(upTo: 64) == 2 }
        #expect(bed.port.keep(from: 0) == 0)
        bed.port.endReceiving(slots: 2)
        #expect(await eventually { bed.port.isStarved }, "it asks for more")
        #expect(try bed.port.receive(upTo: 64) == 2, "those that were kept, and no more")
        bed.port.endReceiving(slots: 2)
        try await until { try bed.port.receive(upTo: 64) == 2 }
        // A packet of three pages has too few.
        bed.port.endReceiving(slots: 1)
        try await until { try bed.port.receive(upTo: 64) == 1 }
        bed.port.endReceiving(slots: 2)
        #expect(bed.give(Bed.frame(9, 9000)))
        #expect(await eventually { bed.port.isStarved })
        #expect(try bed.port.receive(upTo: 64) == 0)
        bed.port.endReceiving(slots: 3)
        try await until { try bed.port.receive(upTo: 64) == 1 }
        #expect(bed.port.packet(0)?.byteCount == 9000)
    }

    /// A host that takes nothing: room ends, and comes back with a call.
    @Test(arguments: [VhostFeatures.old, .new])
    func theHostTakesNothing(features: VhostFeatures) async throws {
        let bed = try Bed(features)
        bed.vhost.hang(true)
        var sent = 0
        while true {
            try bed.port.beginSending()
            while bed.port.room == .some {
                bed.send(Bed.frame(sent, 1514), pieces: [1514])
                sent += 1
            }
            bed.port.send()
            if bed.port.room == .none { break }
        }
        #expect(sent > 200 && bed.port.progress == (sent, 0))
        #expect(try !bed.port.lastLookForRoom())
        let room = try #require(bed.port.roomDescriptor)
        #expect(!linux_is_readable(room, 0))
        bed.vhost.hang(false)
        #expect(linux_is_readable(room, 20_000))
        try await until {
            while bed.end.take(milliseconds: 0) != nil {}
            try bed.port.beginSending()
            return bed.port.progress == (0, UInt64(sent)) && bed.port.room == .some
        }
    }

    /// A turn places all its packets before it describes the first: room is counted from the places on.
    @Test(arguments: [60, 1514])
    func aTurnPlacesBeforeItSends(size: Int) throws {
        let bed = try Bed()
        bed.vhost.hang(true)
        var room = PacketRoom.some
        while room != .none {
            try bed.port.beginSending()
            var places: [Int] = []
            while bed.port.room == .some { places.append(bed.port.place(size, isFirst: true)) }
            room = bed.port.room
            for place in places {
                bed.port.beginPacket(first: place).set64(0, at: 0)
                bed.port.add(place, size)
                bed.port.endPacket()
            }
            bed.port.send()
        }
        #expect(bed.port.progress.waiting > 200 && bed.port.progress.waiting <= 256)
    }

    static let refusals: [(SimulatedVhost.Call, Int, String)] = [
        (.open, 0, "opened"), (.features, 0, "VHOST_GET_FEATURES"), (.setOwner, 0, "VHOST_SET_OWNER"),
        (.setFeatures, 0, "VHOST_SET_FEATURES"), (.setMemory, 0, "VHOST_SET_MEM_TABLE"),
        (.setSize, 0, "VHOST_SET_VRING_NUM"), (.setSize, 1, "VHOST_SET_VRING_NUM"),
        (.setBase, 0, "VHOST_SET_VRING_BASE"), (.setBase, 1, "VHOST_SET_VRING_BASE"),
        (.setAddresses, 0, "VHOST_SET_VRING_ADDR"), (.setAddresses, 1, "VHOST_SET_VRING_ADDR"),
        (.setKick, 0, "VHOST_SET_VRING_KICK"), (.setKick, 1, "VHOST_SET_VRING_KICK"),
        (.setCall, 0, "VHOST_SET_VRING_CALL"), (.setCall, 1, "VHOST_SET_VRING_CALL"),
        (.setError, 0, "VHOST_SET_VRING_ERR"), (.setError, 1, "VHOST_SET_VRING_ERR"),
        (.setBackend, 0, "VHOST_NET_SET_BACKEND"), (.setBackend, 1, "VHOST_NET_SET_BACKEND"),
    ]

    /// Each ioctl in turn: the text names it, nothing is left, and the queue's descriptor works as ever.
    @Test(arguments: refusals)
    func theKernelRefuses(call: SimulatedVhost.Call, after: Int, name: String) async throws {
        let vhost = SimulatedVhost()
        vhost.refuse(call, after: after, .noMemory)
        let (queue, end) = Bed.pair()
        let refusal = failure { () throws(HostFailure) in try VhostPort(queue, vhost) }
        #expect(refusal?.text.contains(name) ?? false, "\(refusal?.text ?? "none")")
        #expect(refusal?.errno == .noMemory)
        #expect(await eventually { vhost.openCount == 0 })
        #expect(queue.put(.plain(body: [1])) > 0)
        #expect(end.take() == .plain(body: [1]))
        #expect(end.put(.plain(body: [2])) > 0)
        #expect(queue.take() == .plain(body: [2]))
    }

    @Test func aKernelWithoutWhatWeNeed() throws {
        for features in [VhostFeatures.version1, .mergeable, []] {
            let vhost = SimulatedVhost()
            vhost.offer(features)
            let refusal = failure { () throws(HostFailure) in try VhostPort(Bed.pair().0, vhost) }
            #expect(refusal?.text.contains("VIRTIO_NET_F_MRG_RXBUF") ?? false)
        }
        let missing = failure { () throws(HostFailure) in try KernelVhost(path: "/dev/none-such").open() }
        #expect(missing?.text.contains("load the module vhost_net") ?? false)
        #expect(failure { () throws(HostFailure) in try NoVhost("because").open() }?.text == "because")
    }

    static let receiveLies: [SimulatedVhost.Lie] = [
        .jump(1), .jump(255), .jump(0x8000), .id(1), .id(255), .id(256), .id(.max), .length(4097), .length(.max),
        .length(0), .length(12), .buffers(0), .buffers(2), .buffers(256), .buffers(.max),
    ]

    /// Everything that the kernel writes is looked at before it is used.
    @Test(arguments: receiveLies, [VhostFeatures.old, .new])
    func theKernelLiesAboutPacketsForUs(lie: SimulatedVhost.Lie, features: VhostFeatures) async throws {
        let bed = try Bed(features)
        bed.vhost.lie(lie, .receive)
        #expect(bed.give(Bed.frame(1, 60)))
        var fault: HostFailure?
        #expect(
            await eventually {
                do throws(HostFailure) { _ = try bed.port.receive(upTo: 64) } catch { fault = error }
                return fault != nil
            }
        )
        #expect(fault?.text.contains("broke the receive ring") ?? false)
        bed.port.close()
    }

    /// A packet in two pages whose first is not full.
    @Test func aPieceThatIsNotFull() async throws {
        let bed = try Bed()
        bed.vhost.lie(.length(4000), .receive)
        #expect(bed.give(Bed.frame(1, 5000)))
        var fault: HostFailure?
        #expect(
            await eventually {
                do throws(HostFailure) { _ = try bed.port.receive(upTo: 64) } catch { fault = error }
                return fault != nil
            }
        )
        #expect(fault?.text.contains("is not full") ?? false)
    }

    @Test(arguments: [SimulatedVhost.Lie.jump(1), .jump(0x4000), .id(1), .id(300), .id(.max)])
    func theKernelLiesAboutPacketsOfOurs(lie: SimulatedVhost.Lie) async throws {
        let bed = try Bed()
        bed.vhost.lie(lie, .transmit)
        try bed.port.beginSending()
        bed.send(Bed.frame(0, 60), pieces: [60])
        bed.port.send()
        var fault: HostFailure?
        #expect(
            await eventually {
                do throws(HostFailure) { try bed.port.beginSending() } catch { fault = error }
                return fault != nil
            }
        )
        #expect(fault?.text.contains("broke the transmit ring") ?? false)
    }

    /// Eventfds that fire without a reason cost a look.
    @Test func bellsThatRingForNothing() async throws {
        let bed = try Bed()
        for _ in 0..<100 { bed.vhost.ringAllBells() }
        #expect(linux_is_readable(bed.port.receiveDescriptor, 20_000))
        #expect(try bed.receive().isEmpty)
        #expect(try !bed.port.lastLookForPackets())
        try bed.port.beginSending()
        #expect(bed.port.room == .some && !bed.port.takeError())
        #expect(bed.give(Bed.frame(3, 100)))
        try await until { try bed.receive() == [Bed.frame(3, 100)] }
    }

    /// Once it is closed, the descriptor is ours alone again, and the kernel's thread lets our memory be.
    @Test func itIsClosed() async throws {
        let bed = try Bed()
        bed.port.close()
        bed.port.close()
        #expect(bed.give(Bed.frame(1, 60)))
        bed.vhost.ringAllBells()
        #expect(bed.queue.take()?.frame.count == 60)
    }
}
