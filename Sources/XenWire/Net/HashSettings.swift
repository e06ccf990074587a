// What a frontend asks for on the control ring: how received packets are hashed and spread over its queues.

/// `XEN_NETIF_CTRL_HASH_TYPE_*`
public struct HashTypes: OptionSet, Hashable, Sendable {
    public let rawValue: UInt32
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
    /// Source and destination address.
    @inlinable public static var ipv4: HashTypes { HashTypes(rawValue: 1) }
    /// The same, and both ports.
    @inlinable public static var ipv4TCP: HashTypes { HashTypes(rawValue: 2) }
    @inlinable public static var ipv6: HashTypes { HashTypes(rawValue: 4) }
    @inlinable public static var ipv6TCP: HashTypes { HashTypes(rawValue: 8) }
    @inlinable public static var all: HashTypes { [.ipv4, .ipv4TCP, .ipv6, .ipv6TCP] }
}

/// What must happen before a control request can be answered.
public enum ControlPlan: Hashable, Sendable {
    case answer(ControlResponse)
    /// Copy `byteCount` (1 … 512) bytes from the start of the page, then call `finish`; if that fails, answer
    /// `invalidParameter`.
    case copy(GrantReference, byteCount: Int)
}

/// The settings of one frontend: a machine that takes control requests one after the other. No hash is computed before
/// an algorithm and types of hashes were chosen.
///
/// Answers are xen-netback's (`hash.c`), but for a key that is too long, where netif.h wants `bufferOverflow`. Nothing
/// changes unless the answer is `success`.
public struct HashSettings: Hashable, Sendable {
    /// Entries of the largest mapping.
    public static let maxMapping = 128

    public private(set) var algorithm = HashAlgorithm.none
    public private(set) var types: HashTypes = []
    public private(set) var toeplitz = ToeplitzHash()
    /// Queue by hash; empty: hash modulo queues.
    public private(set) var mapping: [UInt32] = []

    public init() {}

    /// Takes a request.
    /// - Parameter queues: queues of the connection, at least 1.
    public mutating func plan(_ request: ControlRequest, queues: Int) -> ControlPlan {
        switch request.type {
        case .setHashKey:
            guard request.second <= ToeplitzHash.maxKeyBytes else { return answer(request, .bufferOverflow) }
            guard request.second > 0 else {
                toeplitz = ToeplitzHash()
                return answer(request, .success)
            }
            return .copy(GrantReference(request.first), byteCount: Int(request.second))
        case .setHashMapping:
            guard let entries = entries(of: request) else { return answer(request, .invalidParameter) }
            guard !entries.isEmpty else { return answer(request, .success) }
            return .copy(GrantReference(request.first), byteCount: entries.count * 4)
        default: return answerNow(request)
        }
    }

    /// Goes on with a request whose plan was to copy.
    /// - Parameter bytes: the private copy, as long as the plan said. It is looked at only now (XSA-155, XSA-270).
    public mutating func finish(_ request: ControlRequest, bytes: some WireBytes, queues: Int) -> ControlResponse {
        switch request.type {
        case .setHashKey:
            guard request.second <= ToeplitzHash.maxKeyBytes, request.second <= bytes.byteCount else {
                return ControlResponse(to: request, .bufferOverflow)
            }
            toeplitz = ToeplitzHash(key: bytes, count: Int(request.second))
        case .setHashMapping:
            guard let entries = entries(of: request), entries.count * 4 <= bytes.byteCount else {
                return ControlResponse(to: request, .invalidParameter)
            }
            let values = (0..<entries.count).map { bytes.u32($0 * 4) }
            guard values.allSatisfy({ $0 < UInt32(clamping: queues) }) else {
                return ControlResponse(to: request, .invalidParameter)
            }
            mapping.replaceSubrange(entries, with: values)
        default: return ControlResponse(to: request, .notSupported)
        }
        return ControlResponse(to: request, .success)
    }

    /// The entries that a request sets; nil if they are not all in the mapping (XSA-270: the sum must not wrap).
    private func entries(of request: ControlRequest) -> Range<Int>? {
        let (end, overflow) = request.third.addingReportingOverflow(request.second)
        guard !overflow, end <= mapping.count else { return nil }
        return Int(request.third)..<Int(end)
    }

    private mutating func answerNow(_ request: ControlRequest) -> ControlPlan {
        switch request.type {
        case .getHashFlags:
            guard algorithm != .none else { return answer(request, .notSupported) }
            return answer(request, .success, data: HashTypes.all.rawValue)
        case .setHashFlags:
            let wanted = HashTypes(rawValue: request.first)
            guard algorithm != .none, wanted.isSubset(of: .all) else { return answer(request, .invalidParameter) }
            types = wanted
        case .getHashMappingSize:
            return answer(request, .success, data: UInt32(HashSettings.maxMapping))
        case .setHashMappingSize:
            guard request.first <= HashSettings.maxMapping else { return answer(request, .invalidParameter) }
            mapping = [UInt32](repeating: 0, count: Int(request.first))
        case .setHashAlgorithm:
            guard let wanted = HashAlgorithm(rawValue: request.first) else { return answer(request, .invalidParameter) }
            algorithm = wanted
        default: return answer(request, .notSupported)
        }
        return answer(request, .success)
    }

    private func answer(_ request: ControlRequest, _ status: ControlStatus, data: UInt32 = 0) -> ControlPlan {
        .answer(ControlResponse(to: request, status, data: data))
    }
}

extension HashSettings {
    /// Whether packets are hashed at all.
    public var isActive: Bool { algorithm != .none && !types.isEmpty }

    /// The most specific hash that was asked for, of a packet; nil if there is none, so that we may choose the queue.
    public func hash(of packet: some WireBytes, headers: PacketHeaders) -> PacketHash? {
        guard algorithm == .toeplitz else { return nil }
        let ports = headers.transport == .tcp ? headers.transportOffset : nil
        let start = headers.networkOffset
        switch headers.network {
        case .none: return nil
        case .ipv4:
            if let ports, types.contains(.ipv4TCP) {
                let value = toeplitz.value(packet, at: start + 12, count: 8, ports: ports)
                return PacketHash(kind: .ipv4TCP, value: value)
            }
            guard types.contains(.ipv4) else { return nil }
            return PacketHash(kind: .ipv4, value: toeplitz.value(packet, at: start + 12, count: 8))
        case .ipv6:
            if let ports, types.contains(.ipv6TCP) {
                let value = toeplitz.value(packet, at: start + 8, count: 32, ports: ports)
                return PacketHash(kind: .ipv6TCP, value: value)
            }
            guard types.contains(.ipv6) else { return nil }
            return PacketHash(kind: .ipv6, value: toeplitz.value(packet, at: start + 8, count: 32))
        }
    }

    /// The queue for a hash.
    /// - Parameter queues: queues of the connection, at least 1.
    public func queue(for hash: PacketHash, queues: Int) -> Int {
        guard !mapping.isEmpty else { return Int(hash.value) % queues }
        return min(Int(mapping[Int(hash.value) % mapping.count]), queues - 1)
    }
}
