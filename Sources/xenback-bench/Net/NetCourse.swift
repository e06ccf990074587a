// One kind of packet in one direction, through every consumer in turn.

internal import BackendCore
internal import CBench
internal import HostIO
internal import HostNetwork
internal import SharedRing
internal import XenWire

/// The consumers with their frontends and wires, and what they took in each round.
final class NetCourse {
    private let shape: NetShape
    private let direction: NetDirection
    private let clock: TickClock
    private var ours: NetTrack<LaneConsumer>
    private var plain: NetTrack<PlainConsumer>
    private var host: HostOnly
    private let hostWire: BenchWire
    private let packet: PrivatePages
    private var hostRounds: [Double] = []
    private var copyRounds: [Double] = []

    init(_ shape: NetShape, _ direction: NetDirection, _ bench: BenchHost, _ clock: TickClock) throws {
        self.shape = shape
        self.direction = direction
        self.clock = clock
        packet = try PrivatePages(byteCount: shape.byteCount + PacketQueue.headerBytes)
        shape.header.encode(into: packet.slot(at: 0, byteCount: VirtioNetHeader.byteCount))
        shape.write(into: packet.slot(at: PacketQueue.headerBytes, byteCount: shape.byteCount))
        let guest = bench.guest
        ours = try NetTrack(try NetLoad(shape, guest), packet) { load, wire in
            try LaneConsumer(load, DevicePath(kind: .vif, domain: bench.domain, index: 0), bench.environment, wire)
        }
        plain = try NetTrack(try NetLoad(shape, guest), packet) { load, wire in try PlainConsumer(load, wire) }
        hostWire = try BenchWire()
        host = try HostOnly(shape, hostWire)
    }

    func rows(rounds: Int, turns: Int) throws -> [[Cell]] {
        for _ in 0..<rounds {
            try plain.measure(direction, turns, clock)
            let copied = ours.consumer.grants.take
            _ = copied()
            try ours.measure(direction, turns, clock)
            copyRounds.append(clock.nanoseconds(copied()) / Double(turns * shape.batch))
            try measureHost(turns)
        }
        let counters = try ours.count(direction)
        let (ns, copy, alone) = (median(ours.rounds), median(copyRounds), median(hostRounds))
        let ratio = median(zip(ours.rounds, plain.rounds).map { $0 / $1 })
        let name = Cell.text("\(shape.name) \(direction.name)")
        let base = median(plain.rounds)
        return [
            [name, .text(PlainConsumer.name), .number(base, decimals: 0), .number(1e9 / base, decimals: 0)]
                + [.number(1)] + Array(repeating: .text(""), count: 7),
            [
                name, .text(LaneConsumer.name), .number(ns, decimals: 0), .number(1e9 / ns, decimals: 0),
                .number(ratio), .number(max(0, ns - copy - alone), decimals: 0), .number(copy, decimals: 0),
                .number(alone, decimals: 0),
            ] + counters.map { .number($0, decimals: 3) },
        ]
    }

    private func measureHost(_ turns: Int) throws {
        var ticks: [UInt64] = []
        ticks.reserveCapacity(turns)
        for _ in 0..<turns {
            if direction == .receive {
                for _ in 0..<shape.batch {
                    try hostWire.offer(packet, byteCount: shape.byteCount + PacketQueue.headerBytes)
                }
            }
            let start = bench_ticks()
            let isRight = direction == .transmit ? host.sendAll() : host.receiveAll()
            ticks.append(bench_ticks() &- start)
            guard isRight, direction == .receive || hostWire.drain() == shape.batch else {
                throw BenchFailure("the wire alone loses packets")
            }
        }
        hostRounds.append(clock.nanoseconds(median(ticks)) / Double(shape.batch))
    }
}

/// One consumer, its frontend and its wire.
struct NetTrack<Consumer: NetConsumer & ~Copyable>: ~Copyable {
    private var load: NetLoad
    private let wire: BenchWire
    private let packet: PrivatePages
    var consumer: Consumer
    /// Nanoseconds per packet, one for each round.
    var rounds: [Double] = []
    private var ticks: [UInt64] = []

    init(
        _ load: consuming NetLoad,
        _ packet: PrivatePages,
        _ make: (borrowing NetLoad, BenchWire) throws -> Consumer
    ) throws {
        let wire = try BenchWire()
        let consumer = try make(load, wire)
        self.consumer = consumer
        self.load = load
        self.wire = wire
        self.packet = packet
    }

    mutating func measure(_ direction: NetDirection, _ turns: Int, _ clock: TickClock) throws {
        ticks.removeAll(keepingCapacity: true)
        ticks.reserveCapacity(turns)
        for _ in 0..<turns {
            try prepare(direction)
            let start = bench_ticks()
            let isRight = direction == .transmit ? consumer.sendAll() : consumer.receiveAll()
            ticks.append(bench_ticks() &- start)
            try check(direction, isRight)
        }
        rounds.append(clock.nanoseconds(median(ticks)) / Double(load.shape.batch))
    }

    /// Runs two hundred turns more with everything counted.
    /// - Returns: allocations, objects, retains and releases per packet.
    mutating func count(_ direction: NetDirection) throws -> [Double] {
        let turns = 200
        var counters = Counters()
        for _ in 0..<turns {
            try prepare(direction)
            var isRight = false
            counters.count {
                isRight = direction == .transmit ? consumer.sendAll() : consumer.receiveAll()
            }
            try check(direction, isRight)
        }
        let packets = Double(turns * load.shape.batch)
        return [counters.allocations, counters.objects, counters.retains, counters.releases].map {
            Double($0) / packets
        }
    }

    private mutating func prepare(_ direction: NetDirection) throws {
        switch direction {
        case .transmit: load.send()
        case .receive:
            load.post()
            for _ in 0..<load.shape.batch {
                try wire.offer(packet, byteCount: load.shape.byteCount + PacketQueue.headerBytes)
            }
        }
    }

    private mutating func check(_ direction: NetDirection, _ isRight: Bool) throws {
        let isDone =
            switch direction {
            case .transmit: try load.isAnswered() && wire.drain() == load.shape.batch
            case .receive: try load.isReceived()
            }
        guard isRight, isDone else {
            throw BenchFailure("\(Consumer.name) did not carry each packet \(direction.name)")
        }
    }
}
