// How a USB frontend connects, what goes through it, and what it counted.

public import XenWire

/// As it stands: what Linux's xen-hcd does.
public struct USBFrontendOptions: Sendable {
    /// Whether pages are granted for each URB anew, and their grants ended with its answer. Without it they stay granted
    /// and are used again, with exactly the access that the direction needs.
    public var grantsEachURB = false
    /// Where the frame descriptors begin in their first page: Linux's are an array in the middle of a heap object. From
    /// 4081 on the first descriptor lies on two pages.
    public var frameOffset = 184
    /// Written as `protocol`; xen-hcd writes none.
    public var `protocol`: String?

    public init() {}
}

/// What was negotiated: constant for one connection.
public struct USBFrontendConnection: Sendable, Hashable {
    public let version: USBVersion
    /// 1 … 31
    public let portCount: Int
    public let backend: DomainID

    public init(version: USBVersion, portCount: Int, backend: DomainID) {
        self.version = version
        self.portCount = portCount
        self.backend = backend
    }
}

/// What is plugged into a port now.
public struct USBPortEvent: Sendable, Hashable {
    public let port: USBPort
    public let speed: USBIFSpeed

    public init(_ port: USBPort, _ speed: USBIFSpeed) {
        self.port = port
        self.speed = speed
    }
}

/// What a controller counted since it was connected.
public struct USBFrontendStatistics: Sendable, Hashable {
    /// URBs that went into the ring, and that came back.
    public var submitted: UInt64 = 0
    public var answered: UInt64 = 0
    /// Of those, the ones with another status than `okay`.
    public var failed: UInt64 = 0
    public var unlinks: UInt64 = 0
    /// Bytes that the backend says it moved.
    public var bytes: UInt64 = 0
    public var portEvents: UInt64 = 0
    /// Events received and sent.
    public var events: UInt64 = 0
    public var notifications: UInt64 = 0

    public init() {}
}

/// An URB before it has a place in the ring.
public struct FrontURB: Sendable {
    public enum Kind: Sendable {
        case control(SetupPacket)
        case bulk
        case interrupt(interval: UInt16)
        /// - Parameter packets: places in the buffer.
        case isochronous(interval: UInt16, packets: [IsochronousPacket])
    }

    public var pipe: USBPipe
    public var kind: Kind
    /// Bytes of the buffer, at most 65536 less `pageOffset`.
    public var byteCount: Int
    public var shortNotOK = false
    /// Where the buffer begins in its first page.
    public var pageOffset = 0

    public init(_ pipe: USBPipe, _ kind: Kind, byteCount: Int, shortNotOK: Bool = false) {
        self.pipe = pipe
        self.kind = kind
        self.byteCount = byteCount
        self.shortNotOK = shortNotOK
    }

    /// Pages of the buffer.
    var pageCount: Int { byteCount == 0 ? 0 : (pageOffset + byteCount + 4095) / 4096 }

    var packets: [IsochronousPacket] {
        if case .isochronous(_, let packets) = kind { packets } else { [] }
    }
}

/// An URB that was put into the ring: what to wait for, and what to unlink.
public struct URBTicket: Sendable, Hashable {
    /// The id on the ring.
    public let id: UInt16
    let serial: UInt64
}

/// What became of an URB.
public struct URBOutcome: Sendable {
    public struct Packet: Sendable, Hashable {
        /// Bytes moved, as the backend wrote them into the frame descriptor.
        public let byteCount: Int
        public let status: PacketStatus
    }

    public let response: URBResponse
    /// Of an isochronous URB: what its frame descriptors say.
    public let packets: [Packet]
    /// Of an IN transfer: the whole buffer if it is isochronous, else as many bytes as were moved.
    public let bytes: [UInt8]

    public var status: URBStatus { response.status }
}
