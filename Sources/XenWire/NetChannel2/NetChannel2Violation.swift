// What an end of a netchannel2 link can do that no end may do.

/// Any of these closes the link, and nothing else.
public enum NetChannel2Violation: Error, Hashable, Sendable, CustomStringConvertible {
    case message(NetChannel2MessageFault)
    /// A PACKET before we have said how many there may be.
    case packetBeforeLimit
    /// More packets than we announced that were not finished.
    case tooManyPackets(limit: UInt32)
    /// More fragments than we ever announced.
    case tooManyFragments(Int, limit: UInt32)
    /// A blank checksum, or a packet to be segmented, that we never said we would take.
    case offloadNotAnnounced
    /// A FINISH_PACKET for no packet of ours that waits for one.
    case unknownFinish(id: UInt32)
    /// SET_MAX_PACKETS a second time.
    case limitRepeated
    /// SET_MAX_FRAGMENTS_PER_PACKET of 0.
    case noFragments
    /// A bypass that only a trusted end may ask for.
    case bypassFromUntrusted
    /// An answer about a bypass that nobody asked for.
    case bypassUnasked
    /// More messages of unknown types than an end of another version would send.
    case tooManyUnknown(NetChannel2MessageType)

    public var description: String {
        switch self {
        case .message(let fault): "\(fault)"
        case .packetBeforeLimit: "a packet before SET_MAX_PACKETS"
        case .tooManyPackets(let limit): "more than \(limit) packets that are not finished"
        case .tooManyFragments(let count, let limit): "a packet with \(count) fragments, \(limit) were announced"
        case .offloadNotAnnounced: "a packet with an offload that was not announced"
        case .unknownFinish(let id): "a FINISH_PACKET for \(id), which is no packet that waits for one"
        case .limitRepeated: "a second SET_MAX_PACKETS"
        case .noFragments: "SET_MAX_FRAGMENTS_PER_PACKET of 0"
        case .bypassFromUntrusted: "a bypass wanted by an end that is not trusted"
        case .bypassUnasked: "an answer about a bypass that nobody asked for"
        case .tooManyUnknown(let type): "too many messages of unknown types, the last of type \(type.rawValue)"
        }
    }
}
