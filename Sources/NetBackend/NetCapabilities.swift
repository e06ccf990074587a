// What this backend can do, as it tells every frontend.

/// What this backend offers to every frontend.
public struct NetCapabilities: Hashable, Sendable {
    /// Who puts the host's interface into its bridge or route.
    public enum Placement: String, Hashable, Sendable, CaseIterable {
        /// libxl's script in dom0, xenbackd itself in a driver domain.
        case automatic
        /// Always the toolstack's script.
        case script
        /// Always xenbackd; the toolstack's script is not waited for.
        case native
    }

    /// 1 … 16.
    public let maxQueues: Int
    public let placement: Placement
    /// Whether a thread of the kernel carries packets where there is vhost-net.
    public let usesVhost: Bool

    /// Values outside their range are brought into it.
    public init(maxQueues: Int, placement: Placement = .automatic, usesVhost: Bool = true) {
        self.usesVhost = usesVhost
        self.maxQueues = min(max(maxQueues, 1), 16)
        self.placement = placement
    }
}
