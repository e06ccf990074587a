// Transcripts of handshakes: what happens, and what is to be done about it.

import Testing
import XenWire

/// One line of a transcript.
typealias Line = (HandshakeEvent, [HandshakeDirective])

let scripted = HandshakePolicy(waitsForHotplug: true, removesDirectory: false)
let direct = HandshakePolicy(waitsForHotplug: false, removesDirectory: false)
let driverDomain = HandshakePolicy(waitsForHotplug: false, holdsInitWait: true, removesDirectory: true)

/// A snapshot: the backend's state, the frontend's, and what else.
func sees(
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
func play(
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
func serving(_ policy: HandshakePolicy = scripted) -> Handshake {
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
