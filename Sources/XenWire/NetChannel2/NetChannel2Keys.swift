// Names of the XenStore keys of netchannel2 devices: the toolstack's, and those of profiles P1 and P2.

/// Keys of the backend's and the frontend's half, beyond those of `BusKeys` and `NetKeys`.
public enum NetChannel2Keys {
    // Both halves, written by the toolstack (xend's netif2.py). Local and remote as the directory's owner sees them.
    /// The other end's address.
    public static let remoteMAC = "remote-mac"
    /// 1: this end is trusted by the other one.
    public static let localTrusted = "local-trusted"
    /// 1: the other end is trusted.
    public static let remoteTrusted = "remote-trusted"
    /// 1: frames of the other end with another source than `remote-mac` are dropped.
    public static let filterMAC = "filter-mac"

    // Backend, written by the toolstack.
    public static let maxBypasses = "max-bypasses"
    /// The host's network card to take hardware queues of.
    public static let physicalDevice = "pdev"
    /// `normal` or `force`: the device is to go.
    public static let shutdownRequest = "shutdown-request"

    // Profile P1. Backend.
    /// The largest order of a ring that the backend takes.
    public static let maxRingOrder = "max-ring-order"

    // Profile P1. Frontend; below `queue-N/` where there is more than one queue (P2).
    public static let control = "control-gref"
    /// log2 of the pages of the ring that the frontend produces on.
    public static let producerOrder = "prod-order"
    /// log2 of the pages of the one that it consumes on.
    public static let consumerOrder = "cons-order"
    public static func producerPage(_ index: Int) -> String { "prod-gref-\(index)" }
    public static func consumerPage(_ index: Int) -> String { "cons-gref-\(index)" }
}
