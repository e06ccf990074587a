// The transitions of the handshake: each is one expression.

extension Handshake {
    typealias Transition = (Phase, [HandshakeDirective])

    /// Takes an event's fact in; what follows from the facts is `step`'s business.
    mutating func absorb(_ event: HandshakeEvent) -> Transition {
        switch event {
        case .snapshot(let snapshot):
            look(at: policy.reconfigures ? snapshot.withoutReconfiguring : snapshot)
            return (phase, [])
        case .backingOpened:
            backing = .open
            return (phase, request == .add ? [.answerHotplug(failure: nil)] : [])
        case .backingFailed(let reason):
            backing = .closed
            return request == .add ? (phase, [.answerHotplug(failure: reason)]) : failed(reason)
        case .initWaitHeld:
            isHolding = false
            return (phase, [])
        case .connected:
            return attached
        case .connectFailed(let reason):
            return failed(reason)
        case .connectWithdrawn:
            guard case .connecting = phase else { return (phase, []) }
            return detached(nil)
        case .disconnected:
            guard case .disconnecting(let ignoring) = phase else { return (phase, []) }
            return detached(ignoring)
        case .fault(let reason):
            guard case .serving = phase else { return (phase, []) }
            return (.disconnecting(ignoring: seen?.frontend), [.reportError(reason)] + publishClosing + [.disconnect])
        case .hotplugAdd:
            request = .add
            isUnplugged = false
            return (phase, backing == .open ? [.answerHotplug(failure: nil)] : [])
        case .hotplugRemove:
            request = .remove
            isUnplugged = true
            return (phase, [])
        case .stop:
            isStopping = true
            return (phase, [])
        }
    }

    /// Compares what XenStore holds with what we left there: the difference is somebody else's doing.
    private mutating func look(at snapshot: HandshakeSnapshot) {
        if seen == nil { published = snapshot.backend }
        seen = snapshot
        switch snapshot.backend {
        case nil: foreign = .removed
        case .initialising where published != .initialising: foreign = foreign ?? .replaced
        case .closed where published != .closed: foreign = foreign ?? .closed
        case .closing where published != .closing && published != .closed:
            isCloseAsked = true
            published = .closing
        default: break
        }
    }

    /// What follows from the facts, if anything.
    func step() -> Transition? {
        switch phase {
        case .connecting, .disconnecting, .finished: nil
        case .serving(let sawConnected): serving(sawConnected: sawConnected)
        // Nothing is attached. What is being opened must be open, or not, before it can be released.
        case _ where ending != nil: backing == .opening ? nil : ending
        case .starting: start
        case .opening(let reattaching): backing == .opening ? nil : opened(reattaching: reattaching)
        case .waiting: scripted ?? waiting
        case .closing(let ignoring): scripted ?? closing(ignoring)
        case .closed(let ignoring): scripted ?? closed(ignoring)
        }
    }

    // Beginnings.

    /// The first snapshot: a new device, or one whose backend went away and left `state` as it was.
    private var start: Transition? {
        guard let seen, let frontend = seen.frontend else { return nil }
        return switch (published, frontend) {
        case (.connected, .initialised), (.connected, .connected): (.opening(reattaching: true), [.openBacking])
        // The toolstack's 5, which the frontend has not followed yet. (With online = 1 the 5 is ours, after a fault.)
        case (.closing, .initialised), (.closing, .connected):
            seen.isOnline ? (.closing(ignoring: frontend), []) : (.opening(reattaching: true), [.openBacking])
        case (.connected, .unknown), (.connected, .reconfiguring), (.connected, .reconfigured): nil
        case (.connected, _): (.closing(ignoring: nil), publishClosing)
        case (.closing, _): (.closing(ignoring: nil), [])
        case (.closed, _): (.closed(ignoring: seen.isFrontendActive ? frontend : nil), [])
        case (_, _): beginning
        }
    }

    /// To 2, by way of the backing if no script will ask for it.
    private var beginning: Transition {
        policy.waitsForHotplug && !policy.opensBeforeInitWait || backing == .open
            ? (.waiting, publishInitWait)
            : (.opening(reattaching: false), backing == .opening ? [] : [.openBacking])
    }

    private func opened(reattaching: Bool) -> Transition {
        switch (reattaching, seen?.isFrontendActive ?? false) {
        case (true, true): (.connecting(reattaching: true), [.reattach])
        case (true, false): (.closing(ignoring: nil), publishClosing)
        case (false, _): (.waiting, publishInitWait)
        }
    }

    private var publishInitWait: [HandshakeDirective] {
        let hold: [HandshakeDirective] = policy.holdsInitWait && published == .initialising ? [.holdInitWait] : []
        return [.publishFeatures, .publish(.initWait)] + hold
    }

    /// The script has done its part, or none will.
    var isHotplugDone: Bool {
        !policy.waitsForHotplug || (seen?.isHotplugConnected ?? false) && !isUnplugged
    }

    private var isReady: Bool { isHotplugDone && backing == .open && !isHolding }

    private var waiting: Transition? {
        guard let seen else { return nil }
        return switch seen.frontend {
        case _ where isCloseAsked: (.closed(ignoring: seen.frontend), [.publish(.closed)])
        case .closing: (.closing(ignoring: nil), [.publish(.closing)])
        case .closed: (.closed(ignoring: nil), [.publish(.closed)])
        case _ where isHotplugDone && backing == .closed: (.waiting, [.openBacking])
        case .initialised where policy.ignoresInitialised: nil
        case .initialised where isReady, .connected where isReady: (.connecting(reattaching: false), [.connect])
        default: nil
        }
    }

    // Serving.

    /// `connect` or `reattach` is done; meanwhile the world may have moved on.
    private var attached: Transition {
        switch phase {
        case .connecting(reattaching: true):
            (.serving(sawConnected: seen?.frontend == .connected), [])
        case .connecting(reattaching: false) where isWelcome:
            (.serving(sawConnected: seen?.frontend == .connected), [.publish(.connected)])
        case .connecting(reattaching: false):
            (.disconnecting(ignoring: nil), [.disconnect])
        default: (phase, [])
        }
    }

    var isWelcome: Bool { isReattachWelcome && !isCloseAsked }

    /// The toolstack's 5 does not end a takeover: it is the frontend's to follow, and it may have data to write first.
    var isReattachWelcome: Bool {
        foreign == nil && !isStopping && request != .remove && (seen?.isFrontendActive ?? false)
    }

    private func serving(sawConnected: Bool) -> Transition? {
        switch seen?.frontend {
        case nil: (.disconnecting(ignoring: nil), [.disconnect])
        case _ where foreign != nil || isStopping: (.disconnecting(ignoring: nil), [.disconnect])
        case let frontend where request == .remove:
            (.disconnecting(ignoring: frontend), publishClosing + [.disconnect])
        case .closing, .closed, .initialising, .initWait:
            (.disconnecting(ignoring: nil), publishClosing + [.disconnect])
        // It had been connected: this is a new life of it, with new rings (resumed under the same domain id). It waits
        // for a 4 and would take a 5 for the end (xen-blkfront.c, `blkback_changed`).
        case .initialised where sawConnected: (.disconnecting(ignoring: nil), [.disconnect])
        case .connected where !sawConnected: (.serving(sawConnected: true), [])
        // The toolstack's 5 or online = 0 is the frontend's to follow: it may have data to write first.
        default: nil
        }
    }

    // Endings.

    /// `disconnect` is done: to a frontend that only has new rings we connect again, without leaving 4.
    private func detached(_ ignoring: XenbusState?) -> Transition {
        if published == .connected, isWelcome, isReady { return (.connecting(reattaching: false), [.connect]) }
        return (.closing(ignoring: ignoring), published == .connected && !isStopping ? publishClosing : [])
    }

    private var publishClosing: [HandshakeDirective] {
        foreign != nil || published == .closing || seen?.frontend == nil ? [] : [.publish(.closing)]
    }

    /// An error before there was anything to disconnect.
    private func failed(_ reason: String) -> Transition {
        isStopping
            ? (.closing(ignoring: nil), [])
            : (.closing(ignoring: seen?.frontend), [.reportError(reason)] + publishClosing)
    }

    private func closing(_ ignoring: XenbusState?) -> Transition? {
        switch seen?.frontend {
        case let frontend where ignoring != nil: frontend == ignoring ? nil : (.closing(ignoring: nil), [])
        case .closed, .initialising, .initWait, .initialised, .connected:
            (.closed(ignoring: nil), [.publish(.closed)])
        default: nil
        }
    }

    private func closed(_ ignoring: XenbusState?) -> Transition? {
        switch seen?.frontend {
        case let frontend where ignoring != nil: frontend == ignoring ? nil : (.closed(ignoring: nil), [])
        case .initialising, .initWait, .initialised, .connected: beginning
        default: nil
        }
    }

    /// A script's request, when nothing is attached.
    private var scripted: Transition? {
        switch (request, backing) {
        case (.add, .closed): (phase, [.openBacking])
        case (.remove, .closed), (.remove, .open): (phase, release + [.answerHotplug(failure: nil)])
        default: nil
        }
    }

    private var release: [HandshakeDirective] { backing == .open ? [.closeBacking] : [] }

    /// The end of the device, when nothing is attached. The backing is released before 6 is visible: the toolstack may
    /// give it to somebody else at once.
    var ending: Transition? {
        guard let seen else { return nil }
        let answer: [HandshakeDirective] =
            request == nil ? [] : [.answerHotplug(failure: request == .add ? "the device is gone" : nil)]
        let remove: [HandshakeDirective] = policy.removesDirectory ? [.removeBackendDirectory] : []
        let publish: [HandshakeDirective] = published == .closed ? [] : [.publish(.closed)]
        return switch foreign {
        case .removed, .replaced: (.finished, release + answer + [.finished])
        case .closed: (.finished, release + remove + answer + [.finished])
        case nil where isStopping: (.finished, release + answer + [.finished])
        case nil where isOver(seen): (.finished, release + publish + remove + answer + [.finished])
        case nil: nil
        }
    }

    /// The frontend is gone, or the toolstack wants the device gone and the frontend has let go.
    private func isOver(_ seen: HandshakeSnapshot) -> Bool {
        switch phase {
        // Half-made by the toolstack, or a live frontend to take over.
        case .starting where published == .initialising: !seen.isOnline && seen.frontend != nil
        case .starting where published == .connected || published == .closing:
            seen.frontend == nil || !seen.isOnline && !seen.isFrontendActive
        case .opening(reattaching: true): seen.frontend == nil
        case .closing: seen.frontend == nil || !seen.isOnline && seen.frontend != .closing
        default: seen.frontend == nil || !seen.isOnline
        }
    }
}
