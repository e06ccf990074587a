// Requests and responses of the control ring (netif.h, "Control requests").

/// What a control request asks for (`XEN_NETIF_CTRL_TYPE_*`). Any number can arrive, so this is not an enumeration.
public struct ControlType: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public let rawValue: UInt16
    @inlinable public init(rawValue: UInt16) { self.rawValue = rawValue }

    public static let getHashFlags = ControlType(rawValue: 1)
    public static let setHashFlags = ControlType(rawValue: 2)
    public static let setHashKey = ControlType(rawValue: 3)
    public static let getHashMappingSize = ControlType(rawValue: 4)
    public static let setHashMappingSize = ControlType(rawValue: 5)
    public static let setHashMapping = ControlType(rawValue: 6)
    public static let setHashAlgorithm = ControlType(rawValue: 7)
    public static let getGrantMappingSize = ControlType(rawValue: 8)
    public static let addGrantMapping = ControlType(rawValue: 9)
    public static let deleteGrantMapping = ControlType(rawValue: 10)

    public var description: String {
        switch rawValue {
        case 1: "get-hash-flags"
        case 2: "set-hash-flags"
        case 3: "set-hash-key"
        case 4: "get-hash-mapping-size"
        case 5: "set-hash-mapping-size"
        case 6: "set-hash-mapping"
        case 7: "set-hash-algorithm"
        case 8: "get-gref-mapping-size"
        case 9: "add-gref-mapping"
        case 10: "delete-gref-mapping"
        default: "type \(rawValue)"
        }
    }
}

/// `XEN_NETIF_CTRL_STATUS_*`
public enum ControlStatus: UInt32, Sendable {
    case success = 0
    case notSupported = 1
    case invalidParameter = 2
    case bufferOverflow = 3
}

/// A request (`struct xen_netif_ctrl_request`, 16 bytes); nothing in it is believed.
public struct ControlRequest: Hashable, Sendable {
    /// Echoed in the response.
    public let id: UInt16
    public let type: ControlType
    /// `data[0]`, `data[1]`, `data[2]`
    public let first: UInt32
    public let second: UInt32
    public let third: UInt32

    public init(id: UInt16, type: ControlType, _ first: UInt32 = 0, _ second: UInt32 = 0, _ third: UInt32 = 0) {
        self.id = id
        self.type = type
        self.first = first
        self.second = second
        self.third = third
    }

    public init(decoding bytes: some WireBytes) {
        self.init(
            id: bytes.u16(0),
            type: ControlType(rawValue: bytes.u16(2)),
            bytes.u32(4),
            bytes.u32(8),
            bytes.u32(12)
        )
    }

    /// All 16 bytes of the request.
    public var words: WireWords {
        WireWords(
            low: UInt64(id) | UInt64(type.rawValue) << 16 | UInt64(first) << 32,
            high: UInt64(second) | UInt64(third) << 32
        )
    }
}

/// A response (`struct xen_netif_ctrl_response`, 12 bytes).
public struct ControlResponse: Hashable, Sendable {
    public let id: UInt16
    public let type: ControlType
    /// A `ControlStatus`, or what a backend made of it.
    public let status: UInt32
    public let data: UInt32

    public init(to request: ControlRequest, _ status: ControlStatus, data: UInt32 = 0) {
        id = request.id
        type = request.type
        self.status = status.rawValue
        self.data = data
    }

    /// Reads a response, as the frontend does.
    public init(decoding bytes: some WireBytes) {
        id = bytes.u16(0)
        type = ControlType(rawValue: bytes.u16(2))
        status = bytes.u32(4)
        data = bytes.u32(8)
    }

    /// All 12 bytes of the response.
    public var words: WireWords {
        WireWords(low: UInt64(id) | UInt64(type.rawValue) << 16 | UInt64(status) << 32, high: UInt64(data))
    }
}
