// Messages about bypasses: links between two guests beside their backend. Parsed; no end of ours ever has one.

/// BYPASS_FRONTEND and BYPASS_BACKEND: where the rings of a bypass are.
public struct NetChannel2BypassSetup: Hashable, Sendable {
    /// Who granted the pages; `DOMID_SELF`, 0x7FF0, is the sender of the message.
    public var ringDomain: UInt16
    public var peerDomain: UInt16
    /// Names the bypass in later messages.
    public var handle: UInt32
    public var remoteMAC: MACAddress
    public var isPeerTrusted: Bool
    public var control: GrantReference
    /// The ring that the receiver produces on, and the one that it consumes: equally many pages, a power of two.
    public var producerRing: [GrantReference]
    public var consumerRing: [GrantReference]

    public init(
        ringDomain: UInt16,
        peerDomain: UInt16,
        handle: UInt32,
        remoteMAC: MACAddress,
        isPeerTrusted: Bool,
        control: GrantReference,
        producerRing: [GrantReference],
        consumerRing: [GrantReference]
    ) {
        self.ringDomain = ringDomain
        self.peerDomain = peerDomain
        self.handle = handle
        self.remoteMAC = remoteMAC
        self.isPeerTrusted = isPeerTrusted
        self.control = control
        self.producerRing = producerRing
        self.consumerRing = consumerRing
    }
}

/// A message about a bypass.
public enum NetChannel2Bypass: Hashable, Sendable {
    /// The receiver is to be the frontend of a new bypass.
    case frontend(NetChannel2BypassSetup)
    /// The receiver is to be its backend, and to bind to `port`.
    case backend(NetChannel2BypassSetup, port: EventChannelPort)
    /// The answer to `frontend`. A negative number is taken for a refusal; the header does not say.
    case frontendReady(port: Int32)
    case ready
    case disable(handle: UInt32)
    case disabled(handle: UInt32)
    case detach(handle: UInt32)
    case detached(handle: UInt32)
    case suggest(MACAddress)

    @usableFromInline static let setupBytes = 32
    @usableFromInline static let suggestBytes = 16

    /// - Returns: nil if `type` is not about a bypass.
    @usableFromInline
    init?(decoding bytes: some WireBytes, _ type: NetChannel2MessageType) throws(NetChannel2MessageFault) {
        switch type {
        case .bypassFrontend: self = .frontend(try Self.setup(bytes, type))
        case .bypassBackend:
            let setup = try Self.setup(bytes, type)
            self = .backend(setup, port: EventChannelPort(bytes.u32(4)))
        case .bypassFrontendReady:
            self = .frontendReady(port: Int32(bitPattern: try NetChannel2Message.number(bytes, type)))
        case .bypassReady:
            _ = try NetChannel2Message.number(bytes, type)
            self = .ready
        case .bypassDisable: self = .disable(handle: try NetChannel2Message.number(bytes, type))
        case .bypassDisabled: self = .disabled(handle: try NetChannel2Message.number(bytes, type))
        case .bypassDetach: self = .detach(handle: try NetChannel2Message.number(bytes, type))
        case .bypassDetached: self = .detached(handle: try NetChannel2Message.number(bytes, type))
        case .suggestBypass:
            guard bytes.byteCount == Self.suggestBytes else { throw .wrongSize(type: type, size: bytes.byteCount) }
            self = .suggest(MACAddress(bytes, at: 4))
        default: return nil
        }
    }

    private static func setup(
        _ bytes: some WireBytes,
        _ type: NetChannel2MessageType
    ) throws(NetChannel2MessageFault) -> NetChannel2BypassSetup {
        let size = bytes.byteCount
        guard size >= setupBytes else { throw .wrongSize(type: type, size: size) }
        let pages = Int(bytes.u8(23))
        guard pages >= 1, pages <= 1 << Int(NetChannel2Wire.maxRingOrder), pages & (pages - 1) == 0 else {
            throw .ringPages(bytes.u8(23))
        }
        guard size == setupBytes + 8 * pages else { throw .wrongSize(type: type, size: size) }
        func references(_ start: Int) -> [GrantReference] {
            (0..<pages).map { GrantReference(bytes.u32(start + 4 * $0)) }
        }
        return NetChannel2BypassSetup(
            ringDomain: bytes.u16(8),
            peerDomain: bytes.u16(10),
            handle: bytes.u32(12),
            remoteMAC: MACAddress(bytes, at: 16),
            isPeerTrusted: bytes.u8(22) != 0,
            control: GrantReference(bytes.u32(24)),
            producerRing: references(setupBytes),
            consumerRing: references(setupBytes + 4 * pages)
        )
    }

    /// All eight bytes of an answer.
    /// - Returns: nil for the messages that are no answers.
    public var answer: WireWords? {
        switch self {
        case .frontendReady(let port):
            NetChannel2Message.short(.bypassFrontendReady, UInt32(bitPattern: port))
        case .disabled(let handle): NetChannel2Message.short(.bypassDisabled, handle)
        case .detached(let handle): NetChannel2Message.short(.bypassDetached, handle)
        case .frontend, .backend, .ready, .disable, .detach, .suggest: nil
        }
    }
}
