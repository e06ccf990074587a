// How a frontend goes and comes back, and how a device ends.

import Testing
import XenWire

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
                (sees(.connected, .initialised), [.disconnect]),
                (.disconnected, [.connect]),
                (.connected, [.publish(.connected)]),
                (sees(.connected, .connected), []),
                (sees(.connected, .initialised), [.disconnect]),
                // It saw our 4, which never went away.
                (sees(.connected, .connected), []),
                (.disconnected, [.connect]),
                (.connected, [.publish(.connected)]),
            ],
            from: serving()
        )
    }

    @Test func aNewLifeThatEndsBeforeItBeganIsClosed() {
        play(
            scripted,
            [
                (sees(.connected, .initialised), [.disconnect]),
                (sees(.connected, .closing), []),
                (.disconnected, [.publish(.closing)]),
                (sees(.closing, .closed), [.publish(.closed)]),
            ],
            from: serving()
        )
        play(
            scripted,
            [
                (sees(.connected, .initialised), [.disconnect]),
                (.disconnected, [.connect]),
                (sees(.connected, .closed), []),
                (.connected, [.disconnect]),
                (.disconnected, [.publish(.closing), .publish(.closed)]),
            ],
            from: serving()
        )
        play(
            scripted,
            [
                (sees(.connected, .initialised), [.disconnect]),
                (.disconnected, [.connect]),
                (.connectFailed("ring-ref: x"), [.reportError("ring-ref: x"), .publish(.closing)]),
            ],
            from: serving()
        )
    }

    /// What a takeover waits for loses its use when the frontend goes.
    @Test func aTakeoverThatIsGivenUp() {
        let waiting = play(direct, [(sees(.connected, .connected), [.openBacking]), (.backingOpened, [.reattach])])
        #expect(waiting.isWanted)
        let left = play(direct, [(sees(.connected, .closing), [])], from: waiting)
        #expect(!left.isWanted)
        play(
            direct,
            [
                (.connectWithdrawn, [.publish(.closing)]),
                (sees(.closing, .closed), [.publish(.closed)]),
                (sees(.closed, .initialising), [.publishFeatures, .publish(.initWait)]),
            ],
            from: left
        )
        #expect(!play(direct, [(.stop, [])], from: waiting).isWanted)
        play(direct, [(.stop, []), (.connectWithdrawn, [.closeBacking, .finished])], from: waiting)
        // The toolstack's 5 is the frontend's to follow.
        #expect(play(direct, [(sees(.closing, .connected), [])], from: waiting).isWanted)
    }

    @Test func aNewLifeThatTheToolstackOrWeCutShort() {
        play(
            scripted,
            [
                (sees(.connected, .initialised), [.disconnect]),
                (.stop, []),
                (.disconnected, [.closeBacking, .finished]),
            ],
            from: serving()
        )
        play(
            scripted,
            [
                (sees(.connected, .initialised), [.disconnect]),
                (.hotplugRemove, []),
                (
                    .disconnected,
                    [
                        .publish(.closing), .closeBacking, .answerHotplug(failure: nil), .publish(.closed),
                        .publishFeatures, .publish(.initWait),
                    ]
                ),
            ],
            from: serving()
        )
        play(
            scripted,
            [
                (sees(.connected, .initialised), [.disconnect]),
                (sees(.closing, .initialised, online: false), []),
                (.disconnected, [.closeBacking, .publish(.closed), .finished]),
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
