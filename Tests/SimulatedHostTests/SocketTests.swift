// Devices over sockets and the exchange between them.

import Foundation
import Glibc
import HostIO
import HostNetwork
import SystemPackage
import TestSupport
import Testing

@testable import SimulatedHost

@Suite(.serialized) struct SocketTests {
    /// Runs `body` with an exchange of three devices.
    private func exchanging(_ body: (PacketExchange, SocketNetwork) throws -> Void) throws {
        let folder = "/tmp/exchange-\(getpid())-\(UInt32.random(in: 0 ... .max))"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        let exchange = try PacketExchange(directory: FilePath(folder))
        defer { exchange.shutDown() }
        for name in ["a", "b", "c"] { try exchange.add(name) }
        try body(exchange, SocketNetwork(directory: FilePath(folder)))
    }

    private func wait(_ condition: () -> Bool) -> Bool {
        for _ in 0..<400 {
            if condition() { return true }
            usleep(5000)
        }
        return false
    }

    @Test func framesFindTheirWay() throws {
        try exchanging { exchange, network in
            let queues = try ["a", "b", "c"].map { try network.open(plan($0)).openQueues(1)[0] }
            #expect(wait { ["a", "b", "c"].allSatisfy { exchange.counters(of: $0)?.queues == 1 } })
            // Nobody knows where 2 is.
            _ = queues[0].put(.plain(to: 2, from: 1, body: [1]))
            #expect(queues[1].take()?.payload == [1])
            #expect(queues[2].take()?.payload == [1])
            _ = queues[1].put(.plain(to: 1, from: 2, body: [2]))
            #expect(queues[0].take()?.payload == [2])
            _ = queues[0].put(.plain(to: 2, from: 1, body: [3]))
            #expect(queues[1].take()?.payload == [3])
            _ = queues[0].put(.plain(body: [4]))
            #expect(queues[1].take()?.payload == [4])
            #expect(queues[2].take()?.payload == [4], "and of 2 and 3 it saw nothing")
            #expect(exchange.counters(of: "a")?.receivedPackets == 3)
            #expect(exchange.counters(of: "b")?.sentPackets == 3)
            #expect(exchange.counters(of: "b")?.dropped == 0)
        }
    }

    @Test func largestPacketPasses() throws {
        try exchanging { exchange, network in
            let from = try network.open(plan("a")).openQueues(1)[0]
            let to = try network.open(plan("b")).openQueues(1)[0]
            #expect(wait { exchange.counters(of: "b")?.queues == 1 })
            let sent = Packet.segmented(payload: [UInt8](repeating: 6, count: 65_495), segmentSize: 1448)
            #expect(sent.bytes.count == PacketQueue.headerBytes + 14 + 65_535)
            for _ in 0..<3 { #expect(from.put(sent) == sent.bytes.count) }
            for _ in 0..<3 {
                let isSame = to.take() == sent
                #expect(isSame)
            }
        }
    }

    @Test func deviceThatComesBackIsServed() throws {
        try exchanging { exchange, network in
            let from = try network.open(plan("a")).openQueues(1)[0]
            let device = try network.open(plan("b"))
            for round in 0..<5 {
                let queues = try device.openQueues(2)
                #expect(wait { exchange.counters(of: "b")?.queues == 2 })
                for flow: UInt8 in 0..<16 { _ = from.put(.plain(from: flow, body: [UInt8(round)])) }
                var seen = [0, 0]
                for (index, queue) in queues.enumerated() {
                    while let packet = queue.take(milliseconds: 100) {
                        #expect(packet.payload == [UInt8(round)])
                        seen[index] += 1
                    }
                }
                #expect(seen[0] + seen[1] == 16)
                #expect(seen.allSatisfy { $0 > 0 }, "flows are spread over the queues")
            }
            #expect(wait { exchange.counters(of: "b")?.queues == 0 })
        }
    }

    @Test func fullReceiverLosesPacketsAndHoldsUpNobody() throws {
        try exchanging { exchange, network in
            let from = try network.open(plan("a")).openQueues(1)[0]
            let slow = try network.open(plan("b")).openQueues(1)[0]
            let quick = try network.open(plan("c")).openQueues(1)[0]
            #expect(wait { ["b", "c"].allSatisfy { exchange.counters(of: $0)?.queues == 1 } })
            var seen = 0
            for _ in 0..<300 {
                _ = from.put(.plain(body: [UInt8](repeating: 0, count: 60_000)))
                if quick.take() != nil { seen += 1 }
            }
            #expect(seen == 300)
            #expect((exchange.counters(of: "b")?.dropped ?? 0) > 100)
            withExtendedLifetime(slow) {}
        }
    }

    @Test func rubbishIsIgnored() throws {
        try exchanging { exchange, network in
            let from = try network.open(plan("a")).openQueues(1)[0]
            let to = try network.open(plan("b")).openQueues(1)[0]
            #expect(wait { exchange.counters(of: "b")?.queues == 1 })
            let header = PacketQueue.headerBytes
            for length in [1, header - 1, header, header + 13] {
                _ = from.put(Packet(bytes: [UInt8](repeating: 1, count: length)))
            }
            // Headers that end in the middle.
            for type: [UInt8] in [[8, 0], [0x86, 0xdd]] {
                let bytes = [UInt8](repeating: 0xff, count: header + 12) + type + [0x45]
                _ = from.put(Packet(bytes: bytes))
                #expect(to.take()?.bytes.count == header + 15)
            }
            #expect(exchange.counters(of: "a")?.receivedPackets == 6)
        }
    }

    @Test func nobodyListens() throws {
        let network = SocketNetwork(directory: "/nowhere")
        #expect(failure { () throws(HostFailure) in try network.open(plan("a")) }?.kind == .notFound)
        #expect(failure { () throws(HostFailure) in try network.open(plan("../a")) }?.kind == .invalid)
        try exchanging { exchange, network in
            let device = try network.open(plan("a"))
            exchange.remove("a")
            #expect(wait { exchange.counters(of: "a") == nil })
            #expect(failure { () throws(HostFailure) in try device.openQueues(1) }?.kind == .notFound)
        }
    }
}
