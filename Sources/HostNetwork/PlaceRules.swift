// What to do about an interface that somebody else has changed: changes and times in, decisions out.

/// Where an interface is and how it is set.
struct LinkPlace: Hashable, Sendable {
    var name: String
    /// The bridge or switch that it is a port of; nil: none.
    var bridge: String?
    var isUp: Bool
    var mtu: UInt32
}

/// One aspect of an interface's place that can be changed and restored, in the order of restoring.
enum PlaceAspect: Hashable, Sendable, CaseIterable { case name, mtu, bridge, link }

/// Tells accidental changes from deliberate ones.
///
/// libxl's scripts know an interface by a name from the configuration, so that the script of one guest can hit the
/// interface of another: `vif-bridge offline` takes whatever has its `vifname` off its bridge and down, also when the
/// guest was refused because of that very name. Such a change is undone. An administrator's command looks the same but
/// is repeated: what is changed three times within ten seconds is deliberate, and is left as it is. A guest that is
/// refused again and again takes longer, since libxl waits for each.
struct PlaceRules: Sendable {
    /// Changes of one aspect within `window` that count as deliberate.
    static let insistence = 3
    /// Nanoseconds.
    static let window: UInt64 = 10_000_000_000

    /// What to do about a change.
    enum Decision: Hashable, Sendable { case putBack, leave }

    private(set) var wanted: LinkPlace
    private let mtuIsGiven: Bool
    private var changes: [PlaceAspect: [UInt64]] = [:]

    /// - Parameters:
    ///   - wanted: how the interface was left by whoever set it up.
    ///   - mtuIsGiven: the configuration names an MTU; else it may follow the bridge's, as the script has it.
    init(wanted: LinkPlace, mtuIsGiven: Bool) {
        self.wanted = wanted
        self.mtuIsGiven = mtuIsGiven
    }

    /// - Parameters:
    ///   - bridgeMTU: that of the bridge it is to be a port of; nil if there is none.
    ///   - now: nanoseconds of a clock that does not go back.
    mutating func look(_ found: LinkPlace, bridgeMTU: UInt32?, now: UInt64) -> [(PlaceAspect, Decision)] {
        if !mtuIsGiven, found.mtu == bridgeMTU { wanted.mtu = found.mtu }
        // Brought up by somebody: so much the better.
        if found.isUp { wanted.isUp = true }
        return PlaceAspect.allCases.compactMap { aspect in
            guard isChanged(aspect, found) else { return nil }
            let recent = (changes[aspect] ?? []).filter { now &- $0 < PlaceRules.window } + [now]
            guard recent.count >= PlaceRules.insistence else {
                changes[aspect] = recent
                return (aspect, .putBack)
            }
            changes[aspect] = nil
            adopt(aspect, found)
            return (aspect, .leave)
        }
    }

    private func isChanged(_ aspect: PlaceAspect, _ found: LinkPlace) -> Bool {
        switch aspect {
        case .name: found.name != wanted.name
        case .mtu: found.mtu != wanted.mtu
        case .bridge: found.bridge != wanted.bridge
        case .link: found.isUp != wanted.isUp
        }
    }

    private mutating func adopt(_ aspect: PlaceAspect, _ found: LinkPlace) {
        switch aspect {
        case .name: wanted.name = found.name
        case .mtu: wanted.mtu = found.mtu
        case .bridge: wanted.bridge = found.bridge
        case .link: wanted.isUp = found.isUp
        }
    }
}
