// The verb Ping.

/// Answers when the daemon is well.
public struct Ping: ControlVerb {
    public static let name = "Ping"
    public typealias Reply = NoParameters

    public init() {}
}
