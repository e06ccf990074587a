// Real packets through queues: batches, their order, and offloads' headers on their way through a bridge.

import CLinux
import Foundation
import Glibc
import HostIO
import SharedRing
import TestSupport
import Testing

@testable import HostNetwork

/// Memory for a batch: one piece of 2 KiB for each packet.
private struct Buffers {
    let pages: PrivatePages
    static let size = 2048

    init(_ count: Int) throws { pages = try PrivatePages(byteCount: count * Buffers.size) }

    func bytes(_ index: Int, _ count: Int32) -> [UInt8] {
        pages.withBytes(at: index * Buffers.size, count: Int(count)) { span in
            (0..<span.byteCount).map { unsafe span.unsafeLoad(fromByteOffset: $0, as: UInt8.self) }
        }
    }
}

/// How a batch may work.
enum BatchMode: CaseIterable, Sendable {
    /// As this kernel likes it.
    case best
    /// As on Linux before 6.4, whose TAPs refuse RWF_NOWAIT.
    case withoutNowait
    /// Without io_uring.
    case plain

    func batch(_ packets: Int, runs: Int) throws -> PacketBatch {
        switch self {
        case .best: try PacketBatch(packets: packets, runs: runs)
        case .withoutNowait:
            try PacketBatch(
                packets: packets,
                runs: runs,
                ring: PacketRing(entries: UInt32(packets) + 1, usesNowait: false)
            )
        case .plain: try PacketBatch(packets: packets, runs: runs, ring: nil)
        }
    }
}

/// Two ends of a SOCK_SEQPACKET pair, non-blocking.
private func pair() -> (PacketQueue, PacketQueue) {
    var ends: [CInt] = [-1, -1]
    let type = CInt(SOCK_SEQPACKET.rawValue) | CInt(SOCK_NONBLOCK.rawValue) | CInt(SOCK_CLOEXEC.rawValue)
    #expect(unsafe socketpair(AF_UNIX, type, 0, &ends) == 0)
    return (PacketQueue(OpenFile(adopting: ends[0])), PacketQueue(OpenFile(adopting: ends[1])))
}

@Suite(.serialized) struct BatchTests {
    /// Sends `count` numbered packets in batches of `size` and receives them in the same way.
    private func exchange(_ mode: BatchMode, _ from: PacketQueue, _ to: PacketQueue, size: Int, rounds: Int) throws {
        let buffers = try Buffers(size)
        var out = try mode.batch(size, runs: size * 2)
        var back = try mode.batch(size, runs: size)
        for round in 0..<rounds {
            out.removeAll()
            for index in 0..<size {
                let number = UInt8(truncatingIfNeeded: round * size + index)
                let packet = Packet.plain(body: [UInt8](repeating: number, count: 50 + index)).bytes
                buffers.pages.write(Array(packet[..<30]), at: index * Buffers.size)
                buffers.pages.write(Array(packet[30...]), at: index * Buffers.size + 1000)
                out.beginPacket()
                out.add(buffers.pages, offset: index * Buffers.size, byteCount: 30)
                out.add(buffers.pages, offset: index * Buffers.size + 1000, byteCount: packet.count - 30)
            }
            out.send(to: from)
            for index in 0..<size {
                let result = out.result(index)
                #expect(Int(result) == PacketQueue.headerBytes + 14 + 50 + index)
            }
            back.removeAll()
            for index in 0..<size {
                back.beginPacket()
                back.add(buffers.pages, offset: index * Buffers.size, byteCount: Buffers.size)
            }
            var expected = 0
            while expected < size {
                #expect(linux_is_readable(to.file.descriptor, 2000))
                let found = back.receive(from: to)
                if found == 0 { break }
                for index in 0..<found where back.result(index) > 0 {
                    let bytes = buffers.bytes(index, back.result(index))
                    if bytes[PacketQueue.headerBytes + 12] != 0x88 { continue }
                    let number = UInt8(truncatingIfNeeded: round * size + expected)
                    #expect(bytes.count == PacketQueue.headerBytes + 14 + 50 + expected)
                    #expect(bytes[(PacketQueue.headerBytes + 14)...].allSatisfy { $0 == number })
                    expected += 1
                }
            }
            #expect(expected == size)
            // Hosts talk among themselves (IPv6, IGMP) at any time; of ours nothing is left.
            while case let more = back.receive(from: to), more > 0 {
                for index in 0..<more where back.result(index) > 0 {
                    #expect(buffers.bytes(index, back.result(index))[PacketQueue.headerBytes + 12] != 0x88)
                }
            }
            let result = back.result(0)
            #expect(result == -EAGAIN)
        }
    }

    @Test(arguments: BatchMode.allCases, [1, 3, 4, 32])
    func packetsKeepTheirOrderOnASocket(_ mode: BatchMode, size: Int) throws {
        let (a, b) = pair()
        try exchange(mode, a, b, size: size, rounds: 20)
    }

    /// Packets that come while a batch gives up waiting for them: none is lost, and no call waits for the next one.
    @Test(arguments: BatchMode.allCases)
    func packetsThatComeMeanwhileAreFound(_ mode: BatchMode) throws {
        let (from, to) = pair()
        let count = 20_000
        let sender = Thread {
            var number = UInt32(0)
            while number < UInt32(count) {
                let sent = unsafe write(from.file.descriptor, &number, 4)
                if sent == 4 { number += 1 }
                // Singly and in crowds.
                if sent != 4 || number % 7 == 0 { sched_yield() }
            }
        }
        sender.start()
        let buffers = try Buffers(32)
        var batch = try mode.batch(32, runs: 32)
        var seen = Set<UInt32>()
        let start = ContinuousClock.now
        while seen.count < count, ContinuousClock.now - start < .seconds(60) {
            batch.removeAll()
            for index in 0..<32 {
                batch.beginPacket()
                batch.add(buffers.pages, offset: index * Buffers.size, byteCount: Buffers.size)
            }
            for index in 0..<batch.receive(from: to) where batch.result(index) == 4 {
                seen.insert(buffers.pages.slot(at: index * Buffers.size, byteCount: 4).u32(0))
            }
        }
        #expect(seen.count == count)
    }

    @Test(.enabled(if: Namespace.isAvailable), arguments: BatchMode.allCases)
    func packetsKeepTheirOrderOnATap(_ mode: BatchMode) async throws {
        try await inNamespace {
            try NetlinkSocket().addBridge("bridge0")
            let a = try KernelNetwork().open(plan("a"))
            let b = try KernelNetwork().open(plan("b"))
            let (from, to) = (try a.openQueues(1)[0], try b.openQueues(1)[0])
            #expect(from.reaches(to))
            for size in [1, 8, 32] { try exchange(mode, from, to, size: size, rounds: 5) }
            #expect(try workers().isEmpty, "nothing went to a kernel thread")
        }
    }

    /// Names of io_uring's kernel threads of this process.
    private func workers() throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: "/proc/self/task")
            .compactMap { try? String(contentsOfFile: "/proc/self/task/\($0)/comm", encoding: .utf8) }
            .filter { $0.hasPrefix("iou-wrk") }
    }

    @Test(arguments: BatchMode.allCases) func fullReceiverIsToldAtOnce(_ mode: BatchMode) throws {
        let (a, b) = pair()
        let buffers = try Buffers(32)
        var out = try mode.batch(32, runs: 32)
        for index in 0..<32 {
            out.beginPacket()
            out.add(buffers.pages, offset: index * Buffers.size, byteCount: Buffers.size)
        }
        var taken = 0
        var last: Int32 = 0
        for _ in 0..<100 {
            out.send(to: a)
            var results: [Int32] = []
            for index in 0..<32 { results.append(out.result(index)) }
            last = results[31]
            #expect(results.allSatisfy { $0 == Int32(Buffers.size) || $0 == -EAGAIN })
            taken += results.count { $0 > 0 }
            if results.allSatisfy({ $0 == -EAGAIN }) { break }
        }
        #expect(last == -EAGAIN)
        var there = 0
        while b.take(milliseconds: 0) != nil { there += 1 }
        #expect(there == taken, "what was refused was not sent")
    }

    @Test(arguments: BatchMode.allCases) func deadPeerIsAnError(_ mode: BatchMode) throws {
        signal(SIGPIPE, SIG_IGN)
        let a = pair().0
        let buffers = try Buffers(8)
        var batch = try mode.batch(8, runs: 8)
        for index in 0..<8 {
            batch.beginPacket()
            batch.add(buffers.pages, offset: index * Buffers.size, byteCount: 100)
        }
        batch.send(to: a)
        for index in 0..<8 {
            let result = batch.result(index)
            #expect(result == -EPIPE)
        }
    }

    @Test func adjacentRunsAreOne() throws {
        let (a, b) = pair()
        let buffers = try Buffers(2)
        buffers.pages.write([UInt8](repeating: 5, count: 4096), at: 0)
        var batch = try PacketBatch(packets: 1, runs: 1)
        batch.beginPacket()
        for piece in 0..<40 { batch.add(buffers.pages, offset: piece * 100, byteCount: 100) }
        batch.send(to: a)
        let result = batch.result(0)
        #expect(result == 4000)
        #expect(b.take()?.bytes.count == 4000)
        let isFull = !batch.hasRoom(runs: 1)
        batch.removeAll()
        let isEmpty = batch.hasRoom(runs: 1) && batch.packetCount == 0
        #expect(isFull && isEmpty)
    }
}

@Suite(.enabled(if: Namespace.isAvailable), .serialized) struct OffloadTests {
    private static let content = (0..<64_000).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }

    private static func bridged(_ body: @escaping @Sendable (PacketQueue, any PacketDevice, PacketQueue) throws -> Void)
        async throws
    {
        try await inNamespace {
            try NetlinkSocket().addBridge("bridge0")
            let a = try KernelNetwork().open(plan("a"))
            let b = try KernelNetwork().open(plan("b"))
            let (from, to) = (try a.openQueues(1)[0], try b.openQueues(1)[0])
            #expect(from.reaches(to))
            try body(from, b, to)
        }
    }

    private static func tcp(_ queue: PacketQueue) -> Packet? {
        while let packet = queue.take(milliseconds: 500) {
            if packet.type == 0x800, packet.payload[9] == 6 { return packet }
        }
        return nil
    }

    @Test func largePacketPassesWhole() async throws {
        try await OffloadTests.bridged { from, b, to in
            try b.setOffloads([.checksum, .segmentationV4, .segmentationV6])
            let sent = Packet.segmented(payload: OffloadTests.content, segmentSize: 1448)
            #expect(from.put(sent) == sent.bytes.count)
            let got = try #require(OffloadTests.tcp(to))
            #expect(got.needsChecksum && got.segmentationType == 1 && got.segmentSize == 1448)
            #expect(got.bytes[6...9] == [34, 0, 16, 0], "where the checksum begins and stands")
            let isSame = got.frame == sent.frame
            #expect(isSame)
            #expect(OffloadTests.tcp(to) == nil)
        }
    }

    @Test(arguments: [PacketOffloads.checksum, []])
    func largePacketIsCutForOneWhoCannotTakeIt(_ offloads: PacketOffloads) async throws {
        try await OffloadTests.bridged { from, b, to in
            try b.setOffloads(offloads)
            let sent = Packet.segmented(payload: OffloadTests.content, segmentSize: 1448)
            #expect(from.put(sent) == sent.bytes.count)
            var content: [UInt8] = []
            while let got = OffloadTests.tcp(to) {
                #expect(got.segmentationType == 0)
                #expect(got.bytes.count <= PacketQueue.headerBytes + 14 + 40 + 1448)
                #expect(offloads == .checksum || !got.needsChecksum)
                if !got.needsChecksum { #expect(got.hasRightChecksums) }
                content += got.tcpPayload
            }
            let isWhole = content == OffloadTests.content
            #expect(isWhole, "\(content.count) bytes")
        }
    }

    /// A predecessor's offloads are not inherited by a successor that did not ask for them.
    @Test func offloadsAreForgottenWithTheQueues() async throws {
        try await inNamespace {
            try NetlinkSocket().addBridge("bridge0")
            let a = try KernelNetwork().open(plan("a"))
            let from = try a.openQueues(1)[0]
            do {
                let b = try KernelNetwork().open(plan("b"))
                _ = try b.openQueues(1)
                try b.setOffloads([.checksum, .segmentationV4])
            }
            let b = try KernelNetwork().open(plan("b"))
            let to = try b.openQueues(1)[0]
            #expect(from.reaches(to))
            _ = from.put(.segmented(payload: Array(OffloadTests.content[..<3000]), segmentSize: 1000))
            #expect(OffloadTests.tcp(to)?.segmentationType == 0)
        }
    }
}
