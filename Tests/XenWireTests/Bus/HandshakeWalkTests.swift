// Random walks: whatever frontend, toolstack and host do, in any order, the shell is never asked for nonsense.

import Testing
import XenWire

/// A shell with nothing behind it, and the world around it. It checks that each directive makes sense.
private struct World {
    var machine: Handshake
    var generator: SeededGenerator
    var backend: XenbusState? = .initialising
    var frontend: XenbusState? = .initialising
    var isOnline = true
    var isHotplugConnected = false
    /// Somebody else removed the directory or wrote 6, and the machine has seen it.
    var isForeign = false
    var isBackingOpen = false
    var isOpening = false
    var isConnecting = false
    var isAttached = false
    var isDisconnecting = false
    var isHolding = false
    var scripts = 0
    var isFinished = false
    var written = 0
    /// The toolstack's 6, not ours.
    var wroteSix = false

    mutating func feed(_ event: HandshakeEvent) {
        let directives = machine.receive(event)
        #expect(directives.count <= 8, "\(event) leads to \(directives)")
        for directive in directives { perform(directive) }
    }

    mutating func perform(_ directive: HandshakeDirective) {
        #expect(!isFinished || directive == .answerHotplug(failure: nil) || scripts > 0)
        switch directive {
        case .publishFeatures: #expect(!isForeign)
        case .publish(let state):
            #expect(!isForeign, "writes \(state) into a directory that is not ours")
            #expect(state != .connected || isAttached)
            #expect(state != .closed || !isAttached)
            written += 1
            // A write to a directory that was removed since the last look is the shell's to drop.
            if backend != nil { (backend, wroteSix) = (state, false) }
        case .openBacking:
            #expect(!isBackingOpen && !isOpening)
            isOpening = true
        case .closeBacking:
            #expect(isBackingOpen && !isAttached && !isConnecting)
            isBackingOpen = false
        case .connect, .reattach:
            #expect(isBackingOpen && !isAttached && !isConnecting)
            isConnecting = true
        case .disconnect:
            #expect(isAttached && !isDisconnecting)
            isDisconnecting = true
        case .answerHotplug: scripts = 0
        case .removeBackendDirectory:
            #expect(machine.policy.removesDirectory && !isAttached && !isBackingOpen)
            backend = nil
        case .holdInitWait: isHolding = true
        case .reportError: break
        case .finished:
            #expect(!isFinished && !isBackingOpen && !isOpening && !isAttached && !isConnecting && scripts == 0)
            isFinished = true
        }
    }

    mutating func look() {
        isForeign = isForeign || backend == nil || (backend == .closed && wroteSix)
        let snapshot = HandshakeSnapshot(
            backend: backend,
            frontend: frontend,
            isOnline: isOnline,
            isHotplugConnected: isHotplugConnected
        )
        feed(.snapshot(snapshot))
        guard !isFinished else { return }
        // What we wrote is in the store now; look again, and again: nothing more comes of it.
        let settled = HandshakeSnapshot(
            backend: backend,
            frontend: frontend,
            isOnline: isOnline,
            isHotplugConnected: isHotplugConnected
        )
        #expect(machine.receive(.snapshot(settled)).isEmpty)
        #expect(machine.receive(.snapshot(settled)).isEmpty)
    }

    /// One thing that the frontend, the toolstack or the host may do.
    mutating func stir(gently: Bool) {
        switch Int.random(in: 0..<24, using: &generator) {
        case 0..<10:
            frontend = XenbusState.allCases.randomElement(using: &generator)
        case 10: feedScript(.hotplugAdd)
        case 11 where !gently: feedScript(.hotplugRemove)
        case 12: isHotplugConnected = isBackingOpen
        case 13 where !gently && backend != nil: (isOnline, backend) = (false, backend == .closed ? .closed : .closing)
        case 14 where !gently && machine.published != .closed && !isForeign && backend != nil:
            (backend, wroteSix) = (.closed, true)
        case 15 where !gently: backend = nil
        case 16 where !gently: frontend = nil
        case 17 where !gently: feed(.stop)
        case 18: feed(.fault("fault"))
        default: settle(mayFail: true)
        }
    }

    mutating func feedScript(_ event: HandshakeEvent) {
        guard scripts == 0 else { return }
        scripts = 1
        feed(event)
    }

    /// Lets one outcome come in.
    mutating func settle(mayFail: Bool) {
        let fails = mayFail && Int.random(in: 0..<4, using: &generator) == 0
        if isOpening {
            isOpening = false
            isBackingOpen = !fails
            feed(fails ? .backingFailed("no") : .backingOpened)
        } else if isConnecting {
            isConnecting = false
            isAttached = !fails
            feed(fails ? .connectFailed("no") : .connected)
        } else if isDisconnecting {
            isDisconnecting = false
            isAttached = false
            feed(.disconnected)
        } else if isHolding {
            isHolding = false
            feed(.initWaitHeld)
        }
    }
}

@Suite struct HandshakeWalks {
    static let policies = [
        HandshakePolicy(waitsForHotplug: true, removesDirectory: false),
        HandshakePolicy(waitsForHotplug: false, removesDirectory: false),
        HandshakePolicy(waitsForHotplug: false, holdsInitWait: true, removesDirectory: true),
    ]

    @Test(arguments: HandshakeWalks.policies, [XenbusState.initialising, .connected, .closing, .closed])
    func nothingIsEverAskedTwiceOrTooLate(_ policy: HandshakePolicy, _ found: XenbusState) {
        for seed in 0..<400 as Range<UInt64> {
            var world = World(machine: Handshake(policy), generator: SeededGenerator(seed: seed), backend: found)
            for _ in 0..<60 where !world.isFinished {
                world.look()
                if !world.isFinished { world.stir(gently: false) }
            }
        }
    }

    @Test(arguments: HandshakeWalks.policies)
    func everyDeviceCanBeEnded(_ policy: HandshakePolicy) {
        for seed in 0..<400 as Range<UInt64> {
            var world = World(machine: Handshake(policy), generator: SeededGenerator(seed: seed))
            for _ in 0..<40 {
                world.look()
                world.stir(gently: true)
            }
            #expect(!world.isFinished)
            // xl block-detach --force.
            world.isOnline = false
            world.frontend = nil
            for _ in 0..<8 where !world.isFinished {
                world.look()
                world.settle(mayFail: false)
            }
            #expect(world.isFinished, "seed \(seed) stays in \(world.machine.phase)")
        }
    }

    @Test(arguments: HandshakeWalks.policies)
    func everyFrontendThatBeginsAgainIsServedAgain(_ policy: HandshakePolicy) {
        for seed in 0..<400 as Range<UInt64> {
            var world = World(machine: Handshake(policy), generator: SeededGenerator(seed: seed))
            for _ in 0..<40 {
                world.look()
                world.stir(gently: true)
            }
            world.feedScript(.hotplugAdd)
            for state in [XenbusState.closing, .closed, .initialising, .initialised] {
                world.frontend = state
                for _ in 0..<6 {
                    world.isHotplugConnected = world.isHotplugConnected || world.isBackingOpen
                    world.look()
                    world.settle(mayFail: false)
                }
            }
            #expect(world.machine.phase == .serving(sawConnected: false), "seed \(seed)")
            #expect(world.backend == .connected)
        }
    }

    @Test func aFrontendThatFlipsItsStateCostsAWriteOrTwoPerLook() {
        var world = World(
            machine: Handshake(HandshakeWalks.policies[1]),
            generator: SeededGenerator(seed: 1)
        )
        let looks = 1000
        for _ in 0..<looks {
            world.frontend = XenbusState.allCases.randomElement(using: &world.generator)
            world.look()
            world.settle(mayFail: false)
        }
        #expect(!world.isFinished)
        #expect(world.written <= 4 * looks)
    }
}
