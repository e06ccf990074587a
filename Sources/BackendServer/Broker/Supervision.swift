// One worker's life as a state machine: what the broker does when devices, domain, process or clock change.

internal import Hypervisor

/// What happened.
enum SupervisionEvent: Sendable {
    /// A scan's result: what the domain needs a worker for, and the domain's present identity (nil: gone).
    case seen(Demand, identity: DomainIdentity?)
    /// A running worker was found at start; `foreign` if another build of the program runs it.
    case adopted(serving: DomainIdentity, foreign: Bool)
    /// At start, only the files of a dead worker were found.
    case remains(of: DomainIdentity)
    case startFailed
    case ended(WorkerLife)
    /// The time asked for with `.wake` is over.
    case woken
    /// The broker stops: the worker drains.
    case stop
}

/// What a domain needs.
enum Demand: Hashable, Sendable {
    case nothing
    /// Only devices that are closed for good: no worker, but their files stay as long as they do.
    case closedDevices
    case worker
}

/// What to do about it, in order.
enum SupervisionDirective: Hashable, Sendable {
    case start
    /// Ask the worker to drain and exit (SIGTERM).
    case drain(String)
    /// End it (SIGKILL): the journal keeps what it had taken.
    case kill
    case wake(after: Duration)
    /// Remove journals, lock and socket: their domain is gone.
    case removeFiles
    /// The domain is dead and nobody serves its devices: let the toolstack go on.
    case closeAbandoned
    /// Nothing is left to supervise.
    case forget
}

/// One frontend domain's worker, supervised. Pure: the broker performs the directives.
struct Supervision: Sendable {
    enum Phase: Hashable, Sendable {
        case absent
        case running
        /// It has no devices any more, or its domain is gone, and should leave by itself.
        case leaving
        /// SIGTERM is sent; the reason decides what follows its end.
        case draining(DrainReason)
        case backingOff
        /// The broker stops and there is no process.
        case stopped
    }
    enum DrainReason: Hashable, Sendable { case stop, upgrade, domainGone }

    /// A worker without devices leaves within this time.
    static let leaveTime: Duration = .seconds(15)
    /// A drain with all its I/O ends within this time; the journal makes the alternative safe.
    static let drainTime: Duration = .seconds(30)
    /// For a dead domain nothing is worth waiting for.
    static let goneTime: Duration = .seconds(3)

    private(set) var phase = Phase.absent
    /// nil until the first scan: an adopted worker may end before it, and its journals must stay.
    private(set) var demand: Demand?
    /// The domain that the worker (or its journals) belong to.
    private(set) var served: DomainIdentity?
    /// The domain's present identity.
    private(set) var present: DomainIdentity?
    private var backoff = RestartBackoff()

    /// Whether we asked for its end.
    var isDraining: Bool {
        if case .draining = phase { true } else { false }
    }

    /// A worker runs, or will soon.
    var expectsWorker: Bool { demand == .worker && phase != .stopped && phase != .draining(.stop) }

    mutating func take(_ event: SupervisionEvent) -> [SupervisionDirective] {
        switch (phase, event) {
        case (.stopped, _): []
        case (_, .seen(let demand, let identity)): seen(demand, identity)
        case (_, .adopted(let identity, let foreign)): adopted(identity, foreign)
        case (_, .remains(let identity)): remains(identity)
        case (_, .stop): stop()
        case (_, .ended(let life)): ended(life)
        case (_, .startFailed): pause(backoff.pauseAfterFailedStart())
        case (.backingOff, .woken): startIfDemanded()
        case (.leaving, .woken): drain(.upgrade, reasonToLeave, within: Supervision.drainTime)
        case (.draining, .woken): [.kill]
        case (.absent, .woken), (.running, .woken): []
        }
    }

    private mutating func seen(_ demand: Demand, _ identity: DomainIdentity?) -> [SupervisionDirective] {
        self.demand = demand
        present = identity
        switch phase {
        case .absent, .backingOff:
            if let served, served != identity { return replaced() }
            return phase == .absent || demand != .worker ? startIfDemanded() : []
        case .running, .leaving:
            if let identity, let served, served != identity {
                return drain(.domainGone, "domain number is in use by another domain", within: Supervision.goneTime)
            }
            // A dead domain's worker closes its devices and leaves; if it does not, we close them for it.
            return demand == .worker && identity != nil ? stay() : leave()
        case .draining, .stopped:
            return []
        }
    }

    /// The domain that our files belong to is gone, and there is no process.
    private mutating func replaced() -> [SupervisionDirective] {
        served = nil
        backoff = RestartBackoff()
        return [.removeFiles] + startIfDemanded()
    }

    private mutating func stay() -> [SupervisionDirective] {
        phase = .running
        return []
    }

    private mutating func leave() -> [SupervisionDirective] {
        guard phase == .running else { return [] }
        phase = .leaving
        return [.wake(after: present == nil ? Supervision.goneTime : Supervision.leaveTime)]
    }

    private var reasonToLeave: String {
        demand == .worker ? "its domain is gone and its devices are not closed" : "it has no devices and does not leave"
    }

    private mutating func remains(_ identity: DomainIdentity) -> [SupervisionDirective] {
        served = identity
        return []
    }

    private mutating func adopted(_ identity: DomainIdentity, _ foreign: Bool) -> [SupervisionDirective] {
        phase = .running
        served = identity
        return foreign ? drain(.upgrade, "it runs another build", within: Supervision.drainTime) : []
    }

    private mutating func drain(
        _ reason: DrainReason,
        _ text: String,
        within time: Duration
    ) -> [SupervisionDirective] {
        phase = .draining(reason)
        return [.drain(text), .wake(after: time)]
    }

    private mutating func stop() -> [SupervisionDirective] {
        switch phase {
        case .running, .leaving:
            return drain(.stop, "the service stops", within: Supervision.drainTime)
        case .draining:
            phase = .draining(.stop)
            return []
        case .absent, .backingOff, .stopped:
            phase = .stopped
            return [.forget]
        }
    }

    private mutating func ended(_ life: WorkerLife) -> [SupervisionDirective] {
        let before = phase
        phase = .absent
        // Files of a domain that is gone must not be mistaken for those of the one that has its number now.
        if before != .draining(.stop), let served, let present, served != present { return replaced() }
        switch before {
        case .draining(.stop):
            phase = .stopped
            return [.forget]
        case .draining(.upgrade):
            return startIfDemanded()
        case .draining(.domainGone):
            return replaced()
        case .running, .leaving, .absent, .backingOff, .stopped:
            guard demand == .worker, present != nil else { return startIfDemanded() }
            let pause = backoff.pause(after: life)
            return pause == .zero ? startIfDemanded() : self.pause(pause)
        }
    }

    private mutating func pause(_ pause: Duration) -> [SupervisionDirective] {
        phase = .backingOff
        return [.wake(after: pause)]
    }

    private mutating func startIfDemanded() -> [SupervisionDirective] {
        phase = .absent
        guard let demand else { return [] }
        if demand != .nothing, present == nil {
            served = nil
            return [.removeFiles, .closeAbandoned]
        }
        switch demand {
        case .nothing:
            served = nil
            return [.removeFiles, .forget]
        case .closedDevices:
            return []
        case .worker:
            phase = .running
            served = present
            return [.start]
        }
    }
}
