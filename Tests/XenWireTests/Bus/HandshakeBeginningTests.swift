// How a device begins, and how a dead backend's successor takes over.

import Testing
import XenWire

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
