// Faults to order: which calls fail, wait or kill a domain, and how often.

public import SystemPackage
public import XenWire

/// Faults on request. Rules are tried in order; the first that matches a call is used up by one.
public struct FaultPlan: Sendable {
    public enum Effect: Sendable {
        /// The call fails with this and has no effect.
        case fail(Errno)
        /// The call's answer waits this long; other connections go on.
        case delay(milliseconds: UInt32)
        /// The domain is destroyed, then the call proceeds.
        case destroy(DomainID)
        /// Only for `.copy`: every copy of the batch gets this status (public/grant_table.h, `GNTST_*`).
        case copyStatus(Int16)
    }

    public struct Rule: Sendable {
        /// nil: any call.
        public var call: SimulatedCall?
        /// Whose calls; nil: anyone's.
        public var caller: DomainID?
        /// Matching calls that pass unharmed first.
        public var skip: UInt32
        /// Calls that are hit afterwards; `UInt32.max` is for ever.
        public var count: UInt32
        public var effect: Effect

        public init(
            _ call: SimulatedCall?,
            by caller: DomainID? = nil,
            skip: UInt32 = 0,
            count: UInt32 = 1,
            _ effect: Effect
        ) {
            self.call = call
            self.caller = caller
            self.skip = skip
            self.count = count
            self.effect = effect
        }
    }

    public var rules: [Rule]
    public init(_ rules: [Rule] = []) { self.rules = rules }

    /// What happens to this call; uses up the rule.
    mutating func take(_ call: SimulatedCall, by caller: DomainID) -> Effect? {
        guard !call.isControl else { return nil }
        let fitting = rules.firstIndex { rule in
            rule.count > 0 && (rule.call ?? call) == call && (rule.caller ?? caller) == caller
        }
        guard let fitting else { return nil }
        if rules[fitting].skip > 0 {
            rules[fitting].skip -= 1
            return nil
        }
        if rules[fitting].count != .max { rules[fitting].count -= 1 }
        return rules[fitting].effect
    }

    /// Whether copies, which the machine does not see, have to ask it.
    var touchesCopies: Bool { rules.contains { $0.count > 0 && ($0.call == nil || $0.call == .copy) } }
}

extension FaultPlan.Rule {
    func encode(to message: inout MessageWriter) {
        message.put(call?.rawValue ?? 0)
        message.put(caller?.rawValue ?? .max)
        message.put(skip)
        message.put(count)
        let (kind, value): (UInt8, UInt32) =
            switch effect {
            case .fail(let errno): (0, UInt32(bitPattern: errno.rawValue))
            case .delay(let milliseconds): (1, milliseconds)
            case .destroy(let domain): (2, UInt32(domain.rawValue))
            case .copyStatus(let status): (3, UInt32(bitPattern: Int32(status)))
            }
        message.put(kind)
        message.put(value)
    }

    init(from message: inout MessageReader) throws(Errno) {
        let code: UInt8 = try message.integer()
        call = SimulatedCall(rawValue: code)
        caller = DomainID(try message.integer())
        skip = try message.integer()
        count = try message.integer()
        let kind: UInt8 = try message.integer()
        let value: UInt32 = try message.integer()
        switch kind {
        case 0: effect = .fail(Errno(rawValue: CInt(bitPattern: value)))
        case 1: effect = .delay(milliseconds: value)
        case 2:
            guard let domain = DomainID(UInt16(truncatingIfNeeded: value)) else { throw .invalidArgument }
            effect = .destroy(domain)
        default: effect = .copyStatus(Int16(truncatingIfNeeded: Int32(bitPattern: value)))
        }
    }
}
