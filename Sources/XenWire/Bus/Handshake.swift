// The backend's half of the xenbus handshake as a value: facts go in, directives come out.

/// What the machine is told.
public enum HandshakeEvent: Hashable, Sendable {
    /// What XenStore holds now. Watches carry no information: any of them firing leads to one snapshot.
    case snapshot(HandshakeSnapshot)
    /// `openBacking` is done.
    case backingOpened
    /// `openBacking` did not work out; a host failure in words for the person at the keyboard.
    case backingFailed(String)
    /// The time of `holdInitWait` is over.
    case initWaitHeld
    /// `connect` or `reattach` is done.
    case connected
    /// `connect` or `reattach` did not work out, whoever's fault it is; nothing is mapped.
    case connectFailed(String)
    /// `connect` or `reattach` was given up while it waited, since nobody wants it any more (`isWanted`); nothing is
    /// mapped.
    case connectWithdrawn
    /// `disconnect` is done: nothing in flight, nothing mapped.
    case disconnected
    /// The frontend broke the ring's rules, or the host failed so badly that the device cannot go on.
    case fault(String)
    /// The toolstack's script asks for the device's backing. One script at a time.
    case hotplugAdd
    /// The toolstack's script says that the device is gone.
    case hotplugRemove
    /// We shall end or be replaced: leave XenStore as it is, so that a successor takes over.
    case stop
}

/// What the machine wants done. The shell performs directives one after the other, waiting for each; those with an
/// event named for their outcome may also be started, and the event fed when they are done.
public enum HandshakeDirective: Hashable, Sendable {
    /// Write the `feature-*` keys and limits that do not depend on the backing.
    case publishFeatures
    /// Write `state`; with `connected` the device's properties in the same transaction. Only while the backend's
    /// directory exists: a write to a removed directory would bring it back.
    case publish(XenbusState)
    /// Stay at 2 for 300 ms, so that a toolstack that looks for exactly 2 can see it; then `initWaitHeld`.
    case holdInitWait
    /// Open the image, make the tap device, …; then `backingOpened` or `backingFailed`.
    case openBacking
    /// Release it, locks included.
    case closeBacking
    /// Read the frontend's keys, map its rings, bind its event channels; then `connected` or `connectFailed`.
    case connect
    /// The same to a frontend that never noticed that its backend died: journals are valid, ring indices go on, and the
    /// frontend is notified once. A journal found in any other case is stale.
    case reattach
    /// Take no more requests, finish those in flight, publish their answers, unmap and unbind; then `disconnected`.
    case disconnect
    /// Write the error node and log it.
    case reportError(String)
    /// Answer all waiting scripts: nil is success. Before a successful answer to an add, write `hotplug-status`.
    case answerHotplug(failure: String?)
    /// Remove the backend's directory (driver domains: the toolstack waits for it, and cannot do it).
    case removeBackendDirectory
    /// The device is over; nothing is held any more.
    case finished
}

/// What a kind of device and its place ask of the handshake.
public struct HandshakePolicy: Hashable, Sendable {
    /// The toolstack runs a script for it: the backing is opened when the script asks, and the device connects when
    /// `hotplug-status` is `connected`. Otherwise the backing is opened at once, before state 2, so that a failure is
    /// seen by a toolstack that waits for 2.
    public let waitsForHotplug: Bool
    /// We are in a driver domain, where nobody else removes our directory.
    public let removesDirectory: Bool

    /// No script holds us at 2, but a toolstack looks for it (libxl does for `vbd` and `vbd3`, not for `qdisk`, wherever
    /// the backend is).
    public let holdsInitWait: Bool

    /// The backing is what the script works on (a network interface): it is opened before state 2, which is what the
    /// toolstack waits for before it runs the script.
    public let opensBeforeInitWait: Bool

    /// The frontend's 3 leads nowhere: its keys are complete at 4 (xen-netback ignores 3).
    public let ignoresInitialised: Bool

    /// Both sides may go from 4 to 7 and 8 and back while they are connected, which is the class's own business: cards
    /// come and go (Linux, xen-pciback's `xen_pcibk_reconfigure`).
    public let reconfigures: Bool

    public init(
        waitsForHotplug: Bool,
        holdsInitWait: Bool = false,
        removesDirectory: Bool,
        opensBeforeInitWait: Bool = false,
        ignoresInitialised: Bool = false,
        reconfigures: Bool = false
    ) {
        self.reconfigures = reconfigures
        self.opensBeforeInitWait = opensBeforeInitWait
        self.ignoresInitialised = ignoresInitialised
        self.waitsForHotplug = waitsForHotplug
        self.holdsInitWait = holdsInitWait
        self.removesDirectory = removesDirectory
    }
}

/// The keys that move the handshake, read together.
public struct HandshakeSnapshot: Hashable, Sendable {
    /// nil: the backend's directory, or its `state`, is gone.
    public var backend: XenbusState?
    /// nil: the frontend's directory, or its `state`, is gone.
    public var frontend: XenbusState?
    /// The backend's `online` is 1.
    public var isOnline: Bool
    /// The backend's `hotplug-status` is `connected`.
    public var isHotplugConnected: Bool

    public init(
        backend: XenbusState?,
        frontend: XenbusState?,
        isOnline: Bool = true,
        isHotplugConnected: Bool = false
    ) {
        self.backend = backend
        self.frontend = frontend
        self.isOnline = isOnline
        self.isHotplugConnected = isHotplugConnected
    }

    /// From the nodes' texts, nil where a node is missing. A state that is no state is `unknown`, which moves nothing.
    public init(backendState: String?, frontendState: String?, online: String?, hotplugStatus: String?) {
        self.init(
            backend: backendState.map { XenbusState(text: $0) ?? .unknown },
            frontend: frontendState.map { XenbusState(text: $0) ?? .unknown },
            isOnline: BusKeys.isOnline(online),
            isHotplugConnected: hotplugStatus == "connected"
        )
    }

    /// The frontend has rings it expects to be served, or believes so.
    var isFrontendActive: Bool { frontend == .initialised || frontend == .connected }

    /// As the machine sees it where both sides may reconfigure: 7 and 8 are steps of a connected device.
    var withoutReconfiguring: HandshakeSnapshot {
        var snapshot = self
        if backend == .reconfiguring || backend == .reconfigured { snapshot.backend = .connected }
        if frontend == .reconfiguring || frontend == .reconfigured { snapshot.frontend = .connected }
        return snapshot
    }
}

/// The handshake of one device.
///
/// The shell owns it and is its only caller. The rule that keeps the machine right: **one event at a time, and each
/// snapshot is read after the directives of all earlier events have been performed**; events that come in meanwhile
/// wait in a queue. (A snapshot from before our own write of `state` would look like a foreign write.)
///
/// Nothing here is unbounded: any event yields at most a handful of directives, whatever the frontend does, and the
/// same snapshot again yields none.
public struct Handshake: Sendable {
    /// Where the machine stands. `ignoring` is a frontend state that led nowhere: it must change before it counts again.
    public enum Phase: Hashable, Sendable {
        /// No snapshot yet, or nothing to be seen in it.
        case starting
        /// Opening the backing before anything is published, or before re-attaching.
        case opening(reattaching: Bool)
        /// 2 is published.
        case waiting
        /// Mapping the rings.
        case connecting(reattaching: Bool)
        /// Serving requests. `sawConnected`: the frontend has been at 4, so 3 means a new life of it.
        case serving(sawConnected: Bool)
        /// Finishing requests and unmapping.
        case disconnecting(ignoring: XenbusState?)
        /// 5 is published and nothing is attached; the frontend's 6 is awaited.
        case closing(ignoring: XenbusState?)
        /// 6 is published; a frontend that begins again is awaited.
        case closed(ignoring: XenbusState?)
        case finished
    }

    enum Backing: Hashable, Sendable { case closed, opening, open }
    enum HotplugRequest: Hashable, Sendable { case add, remove }
    /// What others did to the backend's directory.
    enum ForeignChange: Hashable, Sendable {
        /// The directory is gone.
        case removed
        /// It is a new one, for a new device of the same name.
        case replaced
        /// `state` is 6: stop now, release, do not write back (libxl, for kinds whose backend may be dead).
        case closed
    }

    public let policy: HandshakePolicy
    public internal(set) var phase: Phase = .starting
    /// What the backend's `state` holds as far as we know: found, written by us, or the toolstack's 5. Whoever writes
    /// the state again for a reason of his own (a resize) writes this.
    public internal(set) var published: XenbusState?
    var seen: HandshakeSnapshot?
    var backing: Backing = .closed
    var request: HotplugRequest?
    /// The script said "gone" after it said "connected".
    var isUnplugged = false
    var isStopping = false
    var isHolding = false
    /// The toolstack wrote 5.
    var isCloseAsked = false
    var foreign: ForeignChange?

    public init(_ policy: HandshakePolicy) { self.policy = policy }

    /// Takes one event and says what is to be done, in order.
    public mutating func receive(_ event: HandshakeEvent) -> [HandshakeDirective] {
        guard phase != .finished else { return Handshake.afterTheEnd(event) }
        var directives: [HandshakeDirective] = []
        let (next, first) = absorb(event)
        enter(next, first, &directives)
        while let (next, more) = step() { enter(next, more, &directives) }
        return directives
    }

    /// Whether what is being opened or attached is still of use to anybody: who waits for something of the host's gives
    /// up otherwise.
    public var isWanted: Bool {
        switch phase {
        case .connecting(let reattaching): reattaching ? isReattachWelcome : isWelcome
        case .opening(reattaching: true): ending == nil && (seen?.isFrontendActive ?? false)
        case .finished: false
        default: ending == nil
        }
    }

    /// What is being waited for, for a person: "the hotplug script", "the frontend (closing (5))", …
    public var awaited: String {
        let frontend = "the frontend (\(seen?.frontend?.description ?? "gone"))"
        return switch phase {
        case .starting: "the device's keys"
        case .opening: "the backing"
        case .waiting where backing == .opening: "the backing"
        case .waiting where !isHotplugDone: "the hotplug script"
        case .waiting: frontend
        case .connecting: "the rings"
        case .serving: "requests"
        case .disconnecting: "requests in flight"
        case .closing, .closed: frontend
        case .finished: "nothing"
        }
    }

    private mutating func enter(
        _ next: Phase,
        _ more: [HandshakeDirective],
        _ directives: inout [HandshakeDirective]
    ) {
        phase = next
        for directive in more {
            switch directive {
            case .publish(let state):
                published = state
                isCloseAsked = false
            case .holdInitWait: isHolding = true
            case .openBacking: backing = .opening
            case .closeBacking: backing = .closed
            case .answerHotplug: request = nil
            case .publishFeatures, .connect, .reattach, .disconnect, .reportError, .removeBackendDirectory, .finished:
                break
            }
        }
        directives += more
    }

    /// A script that comes late is answered; all else is over.
    private static func afterTheEnd(_ event: HandshakeEvent) -> [HandshakeDirective] {
        switch event {
        case .hotplugAdd: [.answerHotplug(failure: "the device is gone")]
        case .hotplugRemove: [.answerHotplug(failure: nil)]
        default: []
        }
    }
}
