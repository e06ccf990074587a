// The handshake as transcripts: what happens, and what is done about it.

import Testing
import XenWire

/// One line of a transcript.
private typealias Line = (HandshakeEvent, [HandshakeDirective])

private let scripted = HandshakePolicy(waitsForHotplug: true, removesDirectory: false)
private let direct = HandshakePolicy(waitsForHotplug: false, removesDirectory: false)
private let driverDomain = HandshakePolicy(waitsForHotplug: false, holdsInitWait: true, removesDirectory: true)

/// A snapshot: the backend's state, the frontend's, and what else.
private func sees(
    _ backend: XenbusState?,
    _ frontend: XenbusState?,
    online: Bool = true,
    hotplug: Bool = true
) -> HandshakeEvent {
    .snapshot(
        HandshakeSnapshot(backend: backend, frontend: frontend, isOnline: online, isHotplugConnected: hotplug)
    )
}

/// Plays a transcript and compares each line.
@discardableResult
private func play(
    _ policy: HandshakePolicy,
    _ lines: [Line],
    from start: Handshake? = nil,
    sourceLocation: SourceLocation = #_sourceLocation
) -> Handshake {
    var machine = start ?? Handshake(policy)
    for (index, (event, expected)) in lines.enumerated() {
        let directives = machine.receive(event)
        #expect(directives == expected, "line \(index): \(event)", sourceLocation: sourceLocation)
    }
    return machine
}

/// A device that serves a connected frontend.
private func serving(_ policy: HandshakePolicy = scripted) -> Handshake {
    var machine = Handshake(policy)
    for event in [
        sees(.initialising, .initialising, hotplug: false), .hotplugAdd, .backingOpened, sees(.initWait, .initialising),
        .initWaitHeld, sees(.initWait, .initialised), .connected, sees(.connected, .connected),
    ] {
        _ = machine.receive(event)
    }
    precondition(machine.phase == .serving(sawConnected: true))
    return machine
}

@Suite struct HandshakeBeginnings {
    @Test func scriptThenFrontend() {
        let machine = play(
            scripted,
            [
                (sees(.initialising, .initialising, hotplug: false), [.publishFeatures, .publish(.initWait)]),
                (sees(.initWait, .initialising, hotplug: false), []),
                (.hotplugAdd, [.openBacking]),
                (.backingOpened, [.answerHotplug(failure: nil)]),
                (sees(.initWait, .initialising), []),
                (sees(.initWait, .initialised), [.connect]),
                (.connected, [.publish(.connected)]),
                (sees(.connected, .connected), []),
            ]
        )
        #expect(machine.phase == .serving(sawConnected: true))
        #expect(machine.published == .connected)
    }

    @Test func initWaitIsHeldWhateverTheFrontendDoesUntilTheScriptIsDone() {
        play(
            scripted,
            [
                (sees(.initialising, .initialised, hotplug: false), [.publishFeatures, .publish(.initWait)]),
                (sees(.initWait, .connected, hotplug: false), []),
                (.hotplugAdd, [.openBacking]),
                (sees(.initWait, .initialised, hotplug: false), []),
                (.backingOpened, [.answerHotplug(failure: nil)]),
                (sees(.initWait, .connected, hotplug: true), [.connect]),
            ]
        )
    }

    @Test func aScriptThatIsToldNoMayAskAgain() {
        play(
            scripted,
            [
                (sees(.initialising, .initialising, hotplug: false), [.publishFeatures, .publish(.initWait)]),
                (.hotplugAdd, [.openBacking]),
                (.backingFailed("/a.img: locked"), [.answerHotplug(failure: "/a.img: locked")]),
                (sees(.initWait, .initialised, hotplug: false), []),
                (.hotplugAdd, [.openBacking]),
                (.backingOpened, [.answerHotplug(failure: nil)]),
                (sees(.initWait, .initialised), [.connect]),
            ]
        )
    }

    @Test func withoutScriptTheBackingComesFirst() {
        play(
            direct,
            [
                (sees(.initialising, .initialising, hotplug: false), [.openBacking]),
                (sees(.initialising, .initialised, hotplug: false), []),
                (.backingOpened, [.publishFeatures, .publish(.initWait), .connect]),
                (.connected, [.publish(.connected)]),
            ]
        )
    }

    @Test func withoutScriptAFailureShowsAndIsNotRepeated() {
        play(
            direct,
            [
                (sees(.initialising, .initialising), [.openBacking]),
                (.backingFailed("no such file"), [.reportError("no such file"), .publish(.closing)]),
                (sees(.closing, .initialising), []),
                (sees(.closing, .initialising), []),
                // The toolstack gives up.
                (sees(.closing, .initialising, online: false), [.publish(.closed), .finished]),
            ]
        )
    }

    @Test func aToolstackThatLooksForTwoIsGivenTimeToSeeIt() {
        play(
            driverDomain,
            [
                (sees(.initialising, .initialised), [.openBacking]),
                (.backingOpened, [.publishFeatures, .publish(.initWait), .holdInitWait]),
                (sees(.initWait, .initialised), []),
                (.initWaitHeld, [.connect]),
            ]
        )
    }

    @Test func aHalfMadeDeviceIsWaitedFor() {
        play(scripted, [(sees(.initialising, nil, online: false), []), (sees(nil, nil, online: false), [.finished])])
    }

    @Test(arguments: [XenbusState.unknown, .initialised, .reconfiguring, .reconfigured, .initWait])
    func anOddStateOfOursIsABeginning(_ state: XenbusState) {
        play(scripted, [(sees(state, .initialising, hotplug: false), [.publishFeatures, .publish(.initWait)])])
    }
}

@Suite struct HandshakeTakeovers {
    @Test(arguments: [XenbusState.initialised, .connected])
    func aConnectedFrontendNoticesNothing(_ frontend: XenbusState) {
        let machine = play(
            scripted,
            [
                (sees(.connected, frontend), [.openBacking]),
                (.backingOpened, [.reattach]),
                (.connected, []),
                (sees(.connected, .connected), []),
            ]
        )
        #expect(machine.published == .connected)
    }

    @Test func theFrontendLeftMeanwhile() {
        play(
            scripted,
            [
                (sees(.connected, .connected), [.openBacking]),
                (sees(.connected, .closing), []),
                (.backingOpened, [.publish(.closing)]),
                (sees(.closing, .closed), [.publish(.closed)]),
            ]
        )
    }

    @Test func theFrontendBeganAgainWhileNobodyWasThere() {
        play(
            scripted,
            [
                (
                    sees(.connected, .initialising),
                    [.publish(.closing), .publish(.closed), .publishFeatures, .publish(.initWait), .openBacking]
                ),
                (.backingOpened, []),
                (sees(.initWait, .initialised), [.connect]),
            ]
        )
    }

    @Test func whileWaitingForTheFrontend() {
        play(
            scripted,
            [
                (sees(.initWait, .initialised), [.publishFeatures, .publish(.initWait), .openBacking]),
                (.backingOpened, [.connect]),
            ]
        )
    }

    @Test func theToolstackAskedAndTheFrontendStillWrites() {
        play(
            scripted,
            [
                (sees(.closing, .connected, online: false), [.openBacking]),
                (.backingOpened, [.reattach]),
                (.connected, []),
                (sees(.closing, .closing, online: false), [.disconnect]),
                (.disconnected, []),
                (sees(.closing, .closed, online: false), [.closeBacking, .publish(.closed), .finished]),
            ]
        )
    }

    @Test func afterAFaultTheFrontendMustMoveFirst() {
        play(
            scripted,
            [
                (sees(.closing, .connected), []),
                (sees(.closing, .connected), []),
                (sees(.closing, .closed), [.publish(.closed)]),
            ]
        )
    }

    @Test func ofAClosedDevice() {
        play(
            scripted,
            [
                (sees(.closed, .closed), []),
                (sees(.closed, .initialising), [.publishFeatures, .publish(.initWait), .openBacking]),
            ]
        )
        play(scripted, [(sees(.closed, .closed, online: false), [.finished])])
    }

    @Test func theBackingCannotBeHad() {
        play(
            scripted,
            [
                (sees(.connected, .connected), [.openBacking]),
                (.backingFailed("gone"), [.reportError("gone"), .publish(.closing)]),
            ]
        )
    }

    @Test func stoppingLeavesEverythingForTheSuccessor() {
        let machine = play(
            scripted,
            [(.stop, [.disconnect]), (.disconnected, [.closeBacking, .finished])],
            from: serving()
        )
        #expect(machine.published == .connected)
        play(
            scripted,
            [
                (sees(.initWait, .initialised), [.publishFeatures, .publish(.initWait), .openBacking]),
                (.stop, []),
                (.backingOpened, [.closeBacking, .finished]),
            ]
        )
    }
}

@Suite struct HandshakeReconnects {
    @Test func kexecWalksThroughFiveSixOneAndSeesEach() {
        play(
            scripted,
            [
                (sees(.connected, .closing), [.publish(.closing), .disconnect]),
                (.disconnected, []),
                (sees(.closing, .closing), []),
                (sees(.closing, .closed), [.publish(.closed)]),
                (sees(.closed, .closed), []),
                (sees(.closed, .initialising), [.publishFeatures, .publish(.initWait)]),
                (sees(.initWait, .initialised), [.connect]),
                (.connected, [.publish(.connected)]),
            ],
            from: serving()
        )
    }

    @Test func moduleUnloadGoesStraightToSix() {
        play(
            scripted,
            [
                (sees(.connected, .closed), [.publish(.closing), .disconnect]),
                (.disconnected, [.publish(.closed)]),
                (sees(.closed, .initialising), [.publishFeatures, .publish(.initWait)]),
            ],
            from: serving()
        )
    }

    @Test(arguments: [XenbusState.initialising, .initWait])
    func theFrontendBeginsAgainWithoutGoodbye(_ state: XenbusState) {
        play(
            scripted,
            [
                (sees(.connected, state), [.publish(.closing), .disconnect]),
                (.disconnected, [.publish(.closed), .publishFeatures, .publish(.initWait)]),
                (sees(.initWait, .initialised), [.connect]),
            ],
            from: serving()
        )
    }

    @Test func threeAfterFourIsANewLifeWithNewRings() {
        play(
            scripted,
            [
                (sees(.connected, .initialised), [.publish(.closing), .disconnect]),
                (.disconnected, [.publish(.closed), .publishFeatures, .publish(.initWait), .connect]),
                (.connected, [.publish(.connected)]),
            ],
            from: serving()
        )
    }

    @Test func aFrontendThatClosesWhileWeConnectIsNotPublishedTo() {
        play(
            direct,
            [
                (sees(.initialising, .initialised), [.openBacking]),
                (.backingOpened, [.publishFeatures, .publish(.initWait), .connect]),
                (sees(.initWait, .closed), []),
                (.connected, [.disconnect]),
                (.disconnected, [.publish(.closed)]),
            ]
        )
    }

    @Test func badKeysAreReportedOnceAndNotTriedAgain() {
        play(
            direct,
            [
                (sees(.initialising, .initialised), [.openBacking]),
                (.backingOpened, [.publishFeatures, .publish(.initWait), .connect]),
                (.connectFailed("ring-ref: x"), [.reportError("ring-ref: x"), .publish(.closing)]),
                (sees(.closing, .initialised), []),
                (sees(.closing, .closed), [.publish(.closed)]),
                (sees(.closed, .initialising), [.publishFeatures, .publish(.initWait)]),
                (sees(.initWait, .initialised), [.connect]),
            ]
        )
    }

    @Test func aLyingRingClosesTheDeviceUntilTheFrontendMoves() {
        play(
            scripted,
            [
                (.fault("req_prod"), [.reportError("req_prod"), .publish(.closing), .disconnect]),
                (.fault("again"), []),
                (sees(.closing, .connected), []),
                (.disconnected, []),
                (sees(.closing, .connected), []),
                (sees(.closing, .closing), []),
                (sees(.closing, .closed), [.publish(.closed)]),
            ],
            from: serving()
        )
    }
}

@Suite struct HandshakeEndings {
    @Test func blockDetach() {
        play(
            scripted,
            [
                // The toolstack's online = 0 and state = 5; the frontend follows.
                (sees(.closing, .connected, online: false), []),
                (sees(.closing, .closing, online: false), [.disconnect]),
                (.disconnected, []),
                (sees(.closing, .closed, online: false), [.closeBacking, .publish(.closed), .finished]),
                (.hotplugRemove, [.answerHotplug(failure: nil)]),
            ],
            from: serving()
        )
    }

    @Test func forcedDetachRemovesTheFrontend() {
        play(
            scripted,
            [
                (sees(.closing, .connected, online: false), []),
                (sees(.closing, nil, online: false), [.disconnect]),
                (.disconnected, [.closeBacking, .publish(.closed), .finished]),
            ],
            from: serving()
        )
    }

    @Test func detachBeforeTheFrontendCame() {
        play(
            scripted,
            [
                (sees(.initialising, .initialising, hotplug: false), [.publishFeatures, .publish(.initWait)]),
                (.hotplugAdd, [.openBacking]),
                (.backingOpened, [.answerHotplug(failure: nil)]),
                (sees(.closing, .initialising, online: false), [.closeBacking, .publish(.closed), .finished]),
            ]
        )
    }

    @Test func aForeignSixIsObeyedAndNotAnswered() {
        play(
            scripted,
            [(sees(.closed, .connected), [.disconnect]), (.disconnected, [.closeBacking, .finished])],
            from: serving()
        )
        play(
            driverDomain,
            [
                (sees(.closed, .connected), [.disconnect]),
                (.disconnected, [.closeBacking, .removeBackendDirectory, .finished]),
            ],
            from: serving(driverDomain)
        )
    }

    @Test func theDirectoryIsRemovedUnderUs() {
        play(
            driverDomain,
            [
                (sees(nil, .connected, online: false), [.disconnect]),
                (.fault("while disconnecting"), []),
                (.disconnected, [.closeBacking, .finished]),
                (sees(nil, nil), []),
            ],
            from: serving(driverDomain)
        )
    }

    @Test func aNewDeviceOfTheSameNameIsNotWrittenTo() {
        play(
            scripted,
            [
                (sees(.initialising, .initialising), [.disconnect]),
                (.disconnected, [.closeBacking, .finished]),
            ],
            from: serving()
        )
    }

    @Test func theDomainDies() {
        play(
            driverDomain,
            [
                (sees(.connected, nil), [.disconnect]),
                (.disconnected, [.closeBacking, .publish(.closed), .removeBackendDirectory, .finished]),
            ],
            from: serving(driverDomain)
        )
    }

    @Test func aScriptThatRemovesIsAnsweredWhenTheImageIsFree() {
        play(
            scripted,
            [
                (.hotplugRemove, [.publish(.closing), .disconnect]),
                (.disconnected, [.closeBacking, .answerHotplug(failure: nil)]),
                (sees(.closing, .closed), [.publish(.closed)]),
                // `hotplug-status` still says connected, but the script has been here.
                (sees(.closed, .initialising), [.publishFeatures, .publish(.initWait)]),
                (sees(.initWait, .initialised), []),
                (.hotplugAdd, [.openBacking]),
                (.backingOpened, [.answerHotplug(failure: nil), .connect]),
            ],
            from: serving()
        )
    }

    @Test func scriptsAreAnsweredWhateverHappens() {
        play(
            scripted,
            [
                (sees(.initialising, .initialising, hotplug: false), [.publishFeatures, .publish(.initWait)]),
                (.hotplugAdd, [.openBacking]),
                (sees(nil, nil), []),
                (.backingOpened, [.answerHotplug(failure: nil), .closeBacking, .finished]),
                (.hotplugAdd, [.answerHotplug(failure: "the device is gone")]),
            ]
        )
    }
}
