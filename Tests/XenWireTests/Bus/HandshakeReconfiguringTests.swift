// States 7 and 8 of a device whose class goes through them: steps of a connection, before and after a death.

import Testing
import XenWire

private let reconfiguring = HandshakePolicy(waitsForHotplug: false, removesDirectory: false, reconfigures: true)

@Suite struct HandshakeReconfigurings {
    @Test func aConnectionGoesThroughSevenAndEight() {
        let machine = play(
            reconfiguring,
            [
                (sees(.initialising, .initialised), [.openBacking]),
                (.backingOpened, [.publishFeatures, .publish(.initWait), .connect]),
                (.connected, [.publish(.connected)]),
                (sees(.connected, .connected), []),
                (sees(.reconfiguring, .connected), []),
                (sees(.reconfiguring, .reconfiguring), []),
                (sees(.reconfigured, .reconfiguring), []),
                (sees(.reconfigured, .connected), []),
                (sees(.connected, .connected), []),
                // In the midst of it the guest goes.
                (sees(.reconfiguring, .closing), [.publish(.closing), .disconnect]),
            ]
        )
        #expect(machine.published == .closing)
    }

    /// Whoever takes over in the midst of it finds a connection.
    @Test(arguments: [XenbusState.reconfiguring, .reconfigured], [XenbusState.connected, .reconfiguring])
    func aSuccessorGoesOn(_ ours: XenbusState, _ theirs: XenbusState) {
        let machine = play(
            reconfiguring,
            [
                (sees(ours, theirs), [.openBacking]),
                (.backingOpened, [.reattach]),
                (.connected, []),
                (sees(ours, theirs), []),
            ]
        )
        #expect(machine.phase == .serving(sawConnected: true))
    }

    /// To all others these states mean nothing.
    @Test func othersWaitForSomethingTheyKnow() {
        play(direct, [(sees(.connected, .reconfiguring), []), (sees(.connected, .connected), [.openBacking])])
    }
}
