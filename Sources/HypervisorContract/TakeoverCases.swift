// The promise that crash transparency rests on: what a killed backend held can be taken by its successor.

internal import CLinux
public import Hypervisor
internal import SharedRing
public import XenWire

/// What a backend holds of its frontend.
public struct BackendEnds: Sendable {
    public let frontend: DomainID
    public let port: EventChannelPort
    public let references: [GrantReference]
    public init(frontend: DomainID, port: EventChannelPort, references: [GrantReference]) {
        self.frontend = frontend
        self.port = port
        self.references = references
    }

    /// The victim's part, in a process of its own: maps, binds, counts its life in the first page's first word, and
    /// answers each event with one, until it is killed.
    /// - Throws: the failure to map or bind; otherwise never returns.
    public func hold(on hypervisor: any Hypervisor) throws(HypervisorFailure) -> Never {
        let pages = try hypervisor.grants.map(references, of: frontend, access: .readWrite)
        let set = try hypervisor.openEventChannels()
        let own = try set.bind(to: port, of: frontend)
        pages.storeRelease(pages.loadAcquire(at: 0) &+ 1, at: 0)
        while true {
            _ = linux_is_readable(set.descriptor, -1)
            while let port = set.takePending() {
                set.unmask(port)
                set.notify(own)
            }
        }
    }
}

/// Starts a process that calls `BackendEnds.hold`, and returns what kills it and waits for its end.
public typealias Victim = @Sendable (BackendEnds) async throws -> @Sendable () async throws -> Void

extension HypervisorContract {
    /// For hypervisors that work across processes.
    public static func takeoverCase(killing victim: @escaping Victim) -> ContractCase {
        ContractCase("takeover: what a killed backend held is its successor's, five times") { subject in
            let grant = try subject.share(4)
            let front = try subject.frontend.openEventChannels()
            let port = try front.allocate(for: subject.backend.domains.own)
            let ends = BackendEnds(
                frontend: subject.frontend.domains.own,
                port: port,
                references: grant.references
            )
            for life in 1...5 {
                let kill = try await victim(ends)
                let isUp = try await eventually(within: .seconds(30)) {
                    grant.pages.loadAcquire(at: 0) == UInt32(2 * life - 1)
                }
                try expect(isUp, "the victim of life \(life) does not start")
                drainPending(front)
                front.notify(port)
                try expectEqual(next(front), port, "the port that the victim answered")
                front.unmask(port)
                try await kill()
                // Events that nobody hears, as a frontend sends them to a dead backend.
                for _ in 0..<3 { front.notify(port) }

                let pages = try subject.map(grant.references)
                try expectEqual(pages.loadAcquire(at: 0), UInt32(2 * life - 1), "the word that the victim left")
                pages.storeRelease(UInt32(2 * life), at: 0)
                let back = try subject.neighbour.openEventChannels()
                let own = try await bindPatiently(back, to: port, of: subject.frontend.domains.own)
                drainPending(back)
                drainPending(front)
                front.notify(port)
                try expectEqual(next(back), own, "the successor's pending port")
                back.notify(own)
                try expectEqual(next(front), port, "the frontend's pending port")
                front.unmask(port)
                back.unbind(own)
            }
        }
    }
}
