// Both directions of one netchannel2 queue, without actor, loop and events: one turn after the other.

internal import BackendCore
internal import HostNetwork
internal import Hypervisor
internal import NetChannel2
internal import SharedRing
internal import XenWire

/// What a queue is made with and never changes.
struct NetChannel2QueueFacts: Sendable {
    let path: DevicePath
    /// 0 … number of queues − 1.
    let index: Int
    let grants: any GrantTable
    let data: DataLoop
    let shared: NetChannel2Shared
    let interface: String
    let latch: BreakdownLatch
    let mark: CrashLane

    /// The host did not accept or deliver a packet; see `NetQueueFacts.refused`.
    func refused(_ result: Int32) {
        guard PacketBatch.meansGone(result) else { return }
        latch.raise(.host("the interface \(interface) was deleted; the device needs to be attached again"))
    }
}

/// Owned by the queue, used with one `inout` access per turn; allocates nothing.
struct NetChannel2Traffic: ~Copyable {
    private let facts: NetChannel2QueueFacts
    private var link: NetChannel2Link
    private let device: PacketQueue
    private let backlog: NetChannel2Backlog
    /// The interface may have packets: it became readable and has not been found empty since.
    var mayHaveInput = true
    /// The frontend takes none of the packets that wait for it.
    private(set) var isStalled = false
    /// The last turn ran out of credit: nothing is taken from the frontend for this long.
    private(set) var pause: Duration?
    /// Bytes of the last packet, which must be paid for before the next is taken.
    private var unpaid = 0
    private var offloads: NetChannel2Offloads = []
    /// The first packet of the backlog, once it was found to have no room: its checksum may be filled in already.
    private var prepared: NetChannel2Outgoing?
    var metrics = NetMetrics()
    var log: FaultLog

    init(
        _ facts: NetChannel2QueueFacts,
        _ link: consuming NetChannel2Link,
        device: PacketQueue,
        log: FaultLog
    ) throws(BackendFailure) {
        backlog = try NetChannel2Backlog()
        self.facts = facts
        self.link = link
        self.device = device
        self.log = log
    }

    /// Says what we take.
    mutating func open(_ limits: NetChannel2Limits) throws(Breakdown) {
        do throws(NetChannel2LinkFault) { try link.open(limits) } catch { throw breakdown(error) }
        _ = link.flush()
    }

    private func breakdown(_ fault: NetChannel2LinkFault) -> Breakdown {
        .frontend("queue \(facts.index): \(fault)")
    }

    /// Whatever there is to do in both directions, within the bounds of a turn. An event can mean anything: a message,
    /// room, or a finished packet.
    mutating func turn(_ scratch: NetChannel2Scratch, notify: () -> Void) -> TurnEnd {
        metrics.transmitTurns &+= 1
        scratch.clear()
        do throws(NetChannel2LinkFault) {
            let step = try pause == nil ? take(scratch) : .blocked
            let taken = scratch.intake.packets.count
            copy(scratch)
            link.finish(scratch.intake)
            // The frontend has its FINISH_PACKETs before the host's stack works on the packets.
            if taken > 0 { flush(notify) }
            send(scratch)
            let given = try give()
            flush(notify)
            let isMore = step == .full || (!isStalled && mayHaveInput)
            if taken > 0 || given > 0 { facts.mark.device?.progressed() }
            if isMore { return .more }
            // A queue that is out of credit takes no messages, however many wait.
            if pause == nil, try !link.sleep() { return .more }
            if taken == 0, given == 0 { metrics.idleTurns &+= 1 }
            return .idle(worked: taken > 0 || given > 0)
        } catch {
            // The copies of the packets before the one that broke the link are still in the loop's batch.
            facts.data.copies.clear()
            return .broken(breakdown(error))
        }
    }

    private mutating func flush(_ notify: () -> Void) {
        let asked = link.flush()
        metrics.notified(asked)
        if asked { notify() }
    }

    /// There is credit again, or perhaps.
    mutating func resume() { pause = nil }

    // MARK: frontend → host

    private mutating func take(_ scratch: NetChannel2Scratch) throws(NetChannel2LinkFault) -> NetChannel2Step {
        while true {
            if unpaid > 0 {
                // Whatever waits is not looked at before: a frontend could change what kind of message it is.
                guard try link.hasMessages() else { return .empty }
                if let pause = facts.shared.pay(unpaid) {
                    metrics.transmitThrottled &+= 1
                    self.pause = pause
                    return .blocked
                }
                unpaid = 0
            }
            switch try link.takeNext(&scratch.intake, copies: &facts.data.copies) {
            case .packet:
                if facts.shared.isLimited, let last = scratch.intake.packets.last { unpaid = last.packet.byteCount }
            case .other:
                if link.peer.offloads != offloads {
                    offloads = link.peer.offloads
                    facts.shared.takes(offloads, queue: facts.index)
                }
            case let step: return step
            }
        }
    }

    private mutating func copy(_ scratch: NetChannel2Scratch) {
        var (index, lost) = (0, UInt64(0))
        var failure: CopyFailure?
        let count = facts.data.runCopies(facts.grants, with: facts.path.domain) { copy, reason in
            if scratch.intake.failed(copy, from: &index) { lost &+= 1 }
            failure = failure ?? reason
        }
        switch failure {
        case .grant(let status)?:
            metrics.transmitFaults &+= lost
            log.fault("queue \(facts.index): a packet's grant cannot be read: status \(status.rawValue)")
        case .hypervisor(let failure)?:
            metrics.transmitRefused &+= lost
            log.failure("cannot copy packets: \(failure)")
        case nil: break
        }
        if count > 0 { metrics.count(copies: count) }
    }

    private mutating func send(_ scratch: NetChannel2Scratch) {
        for index in 0..<scratch.intake.packets.count where scratch.intake.packets[index].isWhole {
            stage(scratch.intake.packets[index], scratch)
        }
        guard scratch.batch.packetCount > 0 else { return }
        scratch.batch.send(to: device)
        for index in 0..<scratch.batch.packetCount {
            let result = scratch.batch.result(index)
            if result > 0 {
                metrics.transmitPackets &+= 1
                metrics.transmitBytes &+= UInt64(truncatingIfNeeded: scratch.byteCounts[index])
            } else {
                metrics.transmitRefused &+= 1
                facts.refused(result)
            }
        }
    }

    private mutating func stage(_ taken: NetChannel2TakenPacket, _ scratch: NetChannel2Scratch) {
        let count = taken.packet.byteCount
        guard count >= NetChannel2Wire.minPacket else {
            metrics.transmitFaults &+= 1
            log.fault("queue \(facts.index): a packet of \(count) bytes is dropped")
            return
        }
        let bytes = scratch.intake.memory.slot(at: taken.offset, byteCount: count)
        if let source = facts.shared.onlySource, MACAddress(bytes, at: 6) != source {
            metrics.transmitFaults &+= 1
            log.fault("queue \(facts.index): a packet with the source \(MACAddress(bytes, at: 6)) is dropped")
            return
        }
        do throws(OffloadFault) {
            let header = try NetChannel2Pipeline.transmit(taken.packet, bytes)
            if header.segmentKind != .none { metrics.transmitSegmented &+= 1 }
            scratch.stage(header, offset: taken.offset, byteCount: count)
        } catch {
            metrics.transmitFaults &+= 1
            log.fault("queue \(facts.index): a packet is dropped: \(error)")
        }
    }

    // MARK: host → frontend

    /// Gives the frontend what the host has for it, a batch at most.
    /// - Returns: packets that were given.
    private mutating func give() throws(NetChannel2LinkFault) -> Int {
        guard link.isOpen else {
            // Nothing may be sent yet; what the host sends meanwhile waits in the interface.
            isStalled = true
            return 0
        }
        // Without packets that wait, too: those may have been dropped, and only room ends a stall.
        if isStalled, backlog.waiting == 0, try !link.canSend() { return 0 }
        isStalled = false
        if backlog.waiting == 0 {
            guard mayHaveInput else { return 0 }
            let facts = facts
            mayHaveInput = backlog.read(from: device) { facts.refused($0) }
        }
        var given = 0
        while backlog.waiting > 0 {
            guard let packet = prepared ?? prepareFirst() else {
                backlog.dropFirst()
                continue
            }
            prepared = nil
            switch try link.send(packet, backlog.frames, now: MonotonicClock.nanoseconds) {
            case .sent:
                given &+= 1
                metrics.receivePackets &+= 1
                metrics.receiveBytes &+= UInt64(truncatingIfNeeded: packet.byteCount)
                if packet.segmentSize > 0 { metrics.receiveSegmented &+= 1 }
            case .unfit: metrics.receiveUnfit &+= 1
            case .wait:
                metrics.receiveWaits &+= 1
                prepared = packet
                isStalled = true
                return given
            }
            backlog.dropFirst()
        }
        return given
    }

    /// What to say of the backlog's first packet.
    /// - Returns: nil if it is none, or the frontend does not take its kind.
    private mutating func prepareFirst() -> NetChannel2Outgoing? {
        guard let (header, offset, byteCount) = backlog.first() else { return nil }
        let bytes = backlog.frames.slot(at: offset, byteCount: byteCount)
        let packet = NetChannel2Pipeline.receive(header, bytes, at: offset, takes: link.peer.offloads)
        if packet == nil { metrics.receiveUnfit &+= 1 }
        return packet
    }

    /// Drops what the frontend does not take.
    mutating func drain() {
        guard isStalled else { return }
        prepared = nil
        for _ in 0..<32 {
            metrics.receiveStalled &+= UInt64(truncatingIfNeeded: backlog.dropAll())
            if !mayHaveInput { return }
            let facts = facts
            mayHaveInput = backlog.read(from: device) { facts.refused($0) }
        }
    }
}
