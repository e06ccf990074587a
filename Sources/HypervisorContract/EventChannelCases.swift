// Promises of EventChannels.

internal import CLinux
internal import Hypervisor
internal import XenWire

/// Two connected ends.
private struct Pair {
    let front: any EventChannels
    let frontPort: EventChannelPort
    let back: any EventChannels
    let backPort: EventChannelPort
}

extension HypervisorUnderTest {
    /// A connection whose first events are taken: binding leaves one, because Xen cannot know what was lost before.
    fileprivate func connect() throws -> Pair {
        let front = try frontend.openEventChannels()
        let back = try backend.openEventChannels()
        let frontPort = try front.allocate(for: backend.domains.own)
        let backPort = try back.bind(to: frontPort, of: frontend.domains.own)
        drainPending(front)
        drainPending(back)
        return Pair(front: front, frontPort: frontPort, back: back, backPort: backPort)
    }
}

/// Waits for the next event, as a loop does: sleeps on the descriptor, then asks.
func next(_ set: any EventChannels, within milliseconds: CInt = 3000) -> EventChannelPort? {
    let deadline = ContinuousClock.now + .milliseconds(Int(milliseconds))
    repeat {
        if let port = set.takePending() { return port }
    } while linux_is_readable(set.descriptor, milliseconds) && ContinuousClock.now < deadline
    return set.takePending()
}

/// Takes and unmasks until nothing comes.
func drainPending(_ set: any EventChannels) {
    while let port = next(set, within: 30) { set.unmask(port) }
}

extension HypervisorContract {
    static let eventChannelCases: [ContractCase] = [
        ContractCase("events: a notification arrives at the other end, both ways") { subject in
            let pair = try subject.connect()
            pair.front.notify(pair.frontPort)
            try expectEqual(next(pair.back), pair.backPort, "the backend's pending port")
            try expectEqual(pair.back.takePending(), nil, "its second pending port")
            pair.back.notify(pair.backPort)
            try expectEqual(next(pair.front), pair.frontPort, "the frontend's pending port")
        },
        ContractCase("events: the descriptor is readable while something is pending, and only then") { subject in
            let pair = try subject.connect()
            try expect(!linux_is_readable(pair.back.descriptor, 30), "it is readable although nothing happened")
            pair.front.notify(pair.frontPort)
            try expect(linux_is_readable(pair.back.descriptor, 3000), "it is not readable after a notification")
            try expectEqual(next(pair.back), pair.backPort, "the pending port")
            try expect(!linux_is_readable(pair.back.descriptor, 30), "it is readable although all was taken")
        },
        ContractCase("events: a taken port is masked, and what happens meanwhile comes once after unmasking") {
            subject in
            let pair = try subject.connect()
            pair.front.notify(pair.frontPort)
            try expectEqual(next(pair.back), pair.backPort, "the pending port")
            for _ in 0..<5 { pair.front.notify(pair.frontPort) }
            try expectEqual(next(pair.back, within: 100), nil, "the pending port while masked")
            pair.back.unmask(pair.backPort)
            try expectEqual(next(pair.back), pair.backPort, "the pending port after unmasking")
            pair.back.unmask(pair.backPort)
            try expectEqual(next(pair.back, within: 100), nil, "the pending port after all was taken")
        },
        ContractCase("events: none is lost over a thousand turns") { subject in
            let pair = try subject.connect()
            for turn in 0..<1000 {
                // Half of them before the unmasking, half after.
                if turn % 2 == 0 {
                    pair.front.notify(pair.frontPort)
                    pair.back.unmask(pair.backPort)
                } else {
                    pair.back.unmask(pair.backPort)
                    pair.front.notify(pair.frontPort)
                }
                guard next(pair.back) == pair.backPort else { throw ContractViolation("event \(turn) is lost") }
            }
        },
        ContractCase("events: a hundred ports of one set, each reported once") { subject in
            let front = try subject.frontend.openEventChannels()
            let back = try subject.backend.openEventChannels()
            var ends: [EventChannelPort: EventChannelPort] = [:]
            for _ in 0..<100 {
                let port = try front.allocate(for: subject.backend.domains.own)
                ends[try back.bind(to: port, of: subject.frontend.domains.own)] = port
            }
            try expectEqual(ends.count, 100, "the number of different ports")
            drainPending(back)
            drainPending(front)
            for port in ends.values { front.notify(port) }
            var seen: Set<EventChannelPort> = []
            while seen.count < 100, let port = next(back) {
                try expect(seen.insert(port).inserted, "port \(port.rawValue) came twice")
            }
            try expectEqual(seen, Set(ends.keys), "the pending ports")
        },
        ContractCase("events: after unbinding nothing comes, and the other end can be bound again") { subject in
            let pair = try subject.connect()
            pair.front.notify(pair.frontPort)
            _ = linux_is_readable(pair.back.descriptor, 3000)
            pair.back.unbind(pair.backPort)
            try expectEqual(next(pair.back, within: 50), nil, "the pending port after unbinding")
            pair.front.notify(pair.frontPort)
            let again = try pair.back.bind(to: pair.frontPort, of: subject.frontend.domains.own)
            drainPending(pair.back)
            drainPending(pair.front)
            pair.front.notify(pair.frontPort)
            try expectEqual(next(pair.back), again, "the pending port")
        },
        ContractCase("events: a successor binds the port that its predecessor's end left") { subject in
            let front = try subject.frontend.openEventChannels()
            let frontPort = try front.allocate(for: subject.backend.domains.own)
            for life in 0..<5 {
                // Each set goes without unbinding, as when its process is killed.
                let view = life % 2 == 0 ? subject.backend : subject.neighbour
                let back = try view.openEventChannels()
                let port = try await bindPatiently(back, to: frontPort, of: subject.frontend.domains.own)
                drainPending(back)
                drainPending(front)
                front.notify(frontPort)
                try expectEqual(next(back), port, "the backend's pending port in life \(life)")
                back.notify(port)
                try expectEqual(next(front), frontPort, "the frontend's pending port in life \(life)")
                front.unmask(frontPort)
            }
        },
        ContractCase("events: what cannot be bound fails") { subject in
            let back = try subject.backend.openEventChannels()
            let frontend = subject.frontend.domains.own
            let front = try subject.frontend.openEventChannels()
            let other = try front.allocate(for: subject.missing)
            try await expectFailure("binding another domain's port") { () throws(HypervisorFailure) in
                try back.bind(to: other, of: frontend)
            }
            try await expectFailure("binding a port that is not there") { () throws(HypervisorFailure) in
                try back.bind(to: EventChannelPort(0x00FF_FFFF), of: frontend)
            }
            try await expectFailure("binding a port of no domain") { () throws(HypervisorFailure) in
                try back.bind(to: other, of: subject.missing)
            }
            let pair = try subject.connect()
            try await expectFailure("binding a port that is bound") { () throws(HypervisorFailure) in
                try back.bind(to: pair.frontPort, of: frontend)
            }
        },
        ContractCase("events: using a port that is not ours does nothing") { subject in
            let pair = try subject.connect()
            let set = try subject.backend.openEventChannels()
            for port in [pair.backPort, EventChannelPort(0), EventChannelPort(.max)] {
                set.notify(port)
                set.unmask(port)
                set.unbind(port)
            }
            try expectEqual(next(pair.front, within: 50), nil, "the pending port")
            pair.front.notify(pair.frontPort)
            try expectEqual(next(pair.back), pair.backPort, "the pending port of its owner")
        },
    ]
}

/// The end of a set that is gone may take a moment to come free.
func bindPatiently(
    _ set: any EventChannels,
    to port: EventChannelPort,
    of domain: DomainID
) async throws -> EventChannelPort {
    var bound: EventChannelPort?
    var failure: HypervisorFailure?
    _ = try await eventually {
        do throws(HypervisorFailure) { bound = try set.bind(to: port, of: domain) } catch { failure = error }
        return bound != nil
    }
    guard let bound else { throw ContractViolation("the port cannot be bound again: \(failure as Any)") }
    return bound
}
