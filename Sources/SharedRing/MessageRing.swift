// One end of a netchannel2 link's rings: messages out on one, in on the other, both indices in one control page.

public import XenWire

/// Both rings of a link, as one of its ends sees them.
public struct MessageRing<Layout: NetChannel2ControlLayout>: ~Copyable {
    public var incoming: MessageConsumer<Layout>
    public var outgoing: MessageProducer<Layout>

    /// - Parameters:
    ///   - control: the page with the indices of both rings, zeroed by the frontend before it was shown to anybody.
    ///   - frontendPayload: the ring that the frontend produces on.
    ///   - backendPayload: the one that the backend produces on.
    ///   - end: which of both we are.
    ///   - consumed: index of the next message to take: 0 but after a takeover.
    ///   - produced: index of the next message to put.
    public init(
        control: SharedPages,
        frontendPayload: SharedPages,
        backendPayload: SharedPages,
        end: NetChannel2End,
        consumed: UInt32 = 0,
        produced: UInt32 = 0
    ) {
        let (own, others) = end == .frontend ? (frontendPayload, backendPayload) : (backendPayload, frontendPayload)
        incoming = MessageConsumer(control: control, payload: others, producedBy: end.other, startingAt: consumed)
        outgoing = MessageProducer(control: control, payload: own, producedBy: end, startingAt: produced)
    }

    /// Whether all indices in a control page are 0, as those of rings that nobody has used.
    public static func isFresh(_ control: SharedPages) -> Bool {
        [NetChannel2End.frontend, .backend].allSatisfy { ring in
            control.loadAcquire(at: Layout.producer(ring)) == 0 && control.loadAcquire(at: Layout.consumer(ring)) == 0
        }
    }
}
