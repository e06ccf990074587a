// Blank checksums and segmentation, from netif.h's words to those of a TAP device and back.

/// A packet does not match its metadata. It is dropped; the device continues.
public enum OffloadFault: Error, Hashable, Sendable, CustomStringConvertible {
    /// A blank checksum in a packet that has no whole TCP or UDP in it.
    case nothingToSum
    /// Segments of another protocol than the packet's.
    case otherProtocol
    /// A kind of segmentation that netif.h does not have, or with a size of 0.
    case unknownSegmentation(UInt8)
    /// Segmentation without a blank checksum, or a checksum outside the packet.
    case contradiction
    /// The frontend did not announce that it accepts such packets.
    case notNegotiated

    public var description: String {
        switch self {
        case .nothingToSum: "a blank checksum without TCP or UDP"
        case .otherProtocol: "segmentation of another protocol than the packet's"
        case .unknownSegmentation(let kind): "segmentation of kind \(kind)"
        case .contradiction: "a header that contradicts its packet"
        case .notNegotiated: "a packet that the frontend does not take"
        }
    }
}

/// A packet of the frontend, in the host's words.
public struct TransmitOffload: Hashable, Sendable {
    public let header: VirtioNetHeader
    /// The packet came in segments, but with its checksum complete: the field must first be made blank
    /// (`InternetChecksum.makeBlank`). xen-netback does so for frontends with that bug (`checksum_setup`).
    public let makesBlank: Bool

    /// What a host wants in one piece even where the headers end before: as much as xen-netback copies.
    @inlinable public static var linearBytes: Int { 128 }

    /// - Parameters:
    ///   - flags: the packet's.
    ///   - segmentation: the packet's.
    ///   - headers: parsed from all its `byteCount` bytes. `headerLength` covers them whole, so that no network card sees
    ///     headers in pieces (XSA-423).
    @inlinable
    public init(
        flags: TransmitFlags,
        segmentation: Segmentation?,
        headers: PacketHeaders,
        byteCount: Int
    ) throws(OffloadFault) {
        var header = VirtioNetHeader()
        let linear = min(byteCount, max(headers.headerEnd, TransmitOffload.linearBytes))
        header.headerLength = UInt16(truncatingIfNeeded: linear)
        let isBlank = flags.contains(.checksumBlank)
        guard isBlank || segmentation != nil else {
            if flags.contains(.dataValidated) { header.flags = .dataValid }
            self.header = header
            makesBlank = false
            return
        }
        guard let field = headers.checksumField else { throw .nothingToSum }
        if let segmentation {
            let network: PacketHeaders.Network = segmentation.kind == .tcpv4 ? .ipv4 : .ipv6
            guard headers.transport == .tcp, headers.network == network else { throw .otherProtocol }
            // One segment is a packet like any other.
            if byteCount &- headers.headerEnd > Int(segmentation.size) {
                header.segmentKind = segmentation.kind == .tcpv4 ? .tcpv4 : .tcpv6
                header.segmentSize = segmentation.size
            }
        }
        header.flags = .needsChecksum
        header.checksumStart = UInt16(truncatingIfNeeded: headers.transportOffset)
        header.checksumOffset = UInt16(truncatingIfNeeded: field &- headers.transportOffset)
        self.header = header
        makesBlank = !isBlank
    }
}

/// What a frontend takes, beyond whole packets in one page.
public struct ReceiveFeatures: OptionSet, Hashable, Sendable {
    public let rawValue: UInt8
    @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }
    /// Packets in several pages (`feature-sg`).
    @inlinable public static var scatterGather: ReceiveFeatures { ReceiveFeatures(rawValue: 1) }
    /// Blank checksums over IPv4 (no `feature-no-csum-offload`).
    @inlinable public static var checksumV4: ReceiveFeatures { ReceiveFeatures(rawValue: 2) }
    /// Blank checksums over IPv6 (`feature-ipv6-csum-offload`).
    @inlinable public static var checksumV6: ReceiveFeatures { ReceiveFeatures(rawValue: 4) }
    /// `feature-gso-tcpv4`
    @inlinable public static var segmentationV4: ReceiveFeatures { ReceiveFeatures(rawValue: 8) }
    /// `feature-gso-tcpv6`
    @inlinable public static var segmentationV6: ReceiveFeatures { ReceiveFeatures(rawValue: 16) }

    /// Without what cannot be used: segmentation needs several pages and blank checksums.
    @inlinable public var usable: ReceiveFeatures {
        var features = self
        if !isSuperset(of: [.scatterGather, .checksumV4]) { features.remove(.segmentationV4) }
        if !isSuperset(of: [.scatterGather, .checksumV6]) { features.remove(.segmentationV6) }
        return features
    }
}

/// A checksum that must be completed before the packet is forwarded (`InternetChecksum.complete`).
public struct BlankChecksum: Hashable, Sendable {
    /// The first byte that is summed.
    public let start: Int
    /// Where the checksum stands; `field + 2` is inside the packet.
    public let field: Int

    @inlinable
    init(start: Int, field: Int) {
        self.start = start
        self.field = field
    }
}

/// A packet of the host, in netif.h's words and within what the frontend takes.
public struct ReceiveOffload: Hashable, Sendable {
    /// Of the first response; without `moreData` and `extraInfo`.
    public let flags: ReceiveFlags
    public let segmentation: Segmentation?
    /// To be completed by us, as the frontend does not.
    public let blank: BlankChecksum?

    /// - Parameters:
    ///   - header: what the host said.
    ///   - headers: parsed from the packet; any value if `header.needsHeaders` is false.
    ///   - byteCount: bytes of the packet.
    ///   - features: what the frontend takes, `usable`.
    @inlinable
    public init(
        header: VirtioNetHeader,
        headers: PacketHeaders,
        byteCount: Int,
        features: ReceiveFeatures
    ) throws(OffloadFault) {
        guard header.needsHeaders else {
            flags = header.flags.contains(.dataValid) ? .dataValidated : []
            segmentation = nil
            blank = nil
            return
        }
        let start = Int(header.checksumStart)
        let field = start &+ Int(header.checksumOffset)
        guard header.flags.contains(.needsChecksum), field &+ 2 <= byteCount else { throw .contradiction }
        // The frontend finds the field by itself: is it the one that is meant? And Linux's finds none behind a tag
        // (skb_checksum_setup): it drops such packets.
        let isPlain = headers.transportOffset == start && headers.checksumField == field
        let isTaken =
            isPlain && !headers.isTagged && features.contains(headers.network == .ipv4 ? .checksumV4 : .checksumV6)
        segmentation = try ReceiveOffload.segmentation(header, headers, features)
        guard segmentation == nil || isPlain else { throw .contradiction }
        guard segmentation == nil || isTaken else { throw .notNegotiated }
        flags = isTaken ? [.checksumBlank, .dataValidated] : isPlain ? .dataValidated : []
        blank = isTaken ? nil : BlankChecksum(start: start, field: field)
    }

    @inlinable
    static func segmentation(
        _ header: VirtioNetHeader,
        _ headers: PacketHeaders,
        _ features: ReceiveFeatures
    ) throws(OffloadFault) -> Segmentation? {
        let (kind, network, feature): (Segmentation.Kind, PacketHeaders.Network, ReceiveFeatures)
        switch header.segmentKind.withoutECN {
        case .none where header.segmentKind == .none: return nil
        case .tcpv4: (kind, network, feature) = (.tcpv4, .ipv4, .segmentationV4)
        case .tcpv6: (kind, network, feature) = (.tcpv6, .ipv6, .segmentationV6)
        default: throw .unknownSegmentation(header.segmentKind.rawValue)
        }
        guard let segmentation = Segmentation(kind: kind, size: header.segmentSize) else {
            throw .unknownSegmentation(header.segmentKind.rawValue)
        }
        guard headers.transport == .tcp, headers.network == network else { throw .otherProtocol }
        guard features.contains(feature) else { throw .notNegotiated }
        return segmentation
    }
}
