// What every verb of the control interface has.

/// One method of `org.xenback.control`: a value of the type is the call's parameters.
///
/// A new verb is one file in `Verbs/`, its lines in `org.xenback.control.varlink`, and one `on(_:)` in the daemon.
public protocol ControlVerb: Codable, Equatable, Sendable {
    /// The answer's parameters.
    associatedtype Reply: Codable & Equatable & Sendable

    /// The method's name without the interface, e.g. `"List"`.
    static var name: String { get }

    /// The full name, as it is on the wire: `name` within `org.xenback.control` unless the verb says otherwise.
    static var method: String { get }
}

extension ControlVerb {
    public static var method: String { "\(ControlInterface.name).\(name)" }
}

/// No parameters: `{}` on the wire.
public struct NoParameters: Codable, Equatable, Sendable {
    public init() {}
}
