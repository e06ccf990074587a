// The kernel's vhost-net: a thread that moves packets between a TAP and rings in our memory (linux/vhost.h).

internal import CLinux
internal import Glibc
public import HostIO
internal import SharedRing
public import SystemPackage

/// The rings of a vhost-net device (drivers/vhost/net.c, `VHOST_NET_VQ_RX` and `VHOST_NET_VQ_TX`).
public enum VhostRing: UInt32, Hashable, Sendable, CaseIterable {
    /// Packets from the host.
    case receive = 0
    /// Packets to it.
    case transmit = 1
}

/// What vhost can do, of that which we use.
public struct VhostFeatures: OptionSet, Hashable, Sendable {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }
    /// `VIRTIO_F_VERSION_1`: everything is little-endian.
    public static let version1 = VhostFeatures(rawValue: VHOST_FEATURE_VERSION_1)
    /// `VIRTIO_NET_F_MRG_RXBUF`: a packet may fill several buffers; the header has 12 bytes.
    public static let mergeable = VhostFeatures(rawValue: VHOST_FEATURE_MERGEABLE)
    /// `VIRTIO_RING_F_EVENT_IDX`
    public static let eventIndex = VhostFeatures(rawValue: VHOST_FEATURE_EVENT_INDEX)
}

/// Memory of this process that descriptors may name.
public struct VhostRegion: Hashable, Sendable {
    /// What descriptors call its first byte.
    public var name: UInt64
    public var byteCount: UInt64
    /// Its address in this process.
    public var address: UInt64
}

/// Addresses in this process of the parts of a ring.
public struct VhostRingAddresses: Hashable, Sendable {
    public var descriptors: UInt64
    public var available: UInt64
    public var used: UInt64
}

/// An eventfd of a ring, as the ioctls name it.
public enum VhostEvent: UInt32, Hashable, Sendable, CaseIterable {
    /// We tell it that there are buffers.
    case kick
    /// It tells us that it has used some.
    case call
    /// It tells us that something is wrong with the ring.
    case error
}

/// One open vhost-net: a method for each ioctl, which may block for a moment. Each throws what the ioctl says.
///
/// Its thread works on the memory that it was told of, from `setBackend` until `setBackend` with nil has returned or the last
/// reference is released.
public protocol VhostKernel: AnyObject, Sendable {
    func features() throws(Errno) -> VhostFeatures
    func setFeatures(_ features: VhostFeatures) throws(Errno)
    func setOwner() throws(Errno)
    func setMemory(_ first: VhostRegion, _ second: VhostRegion) throws(Errno)
    func setSize(_ ring: VhostRing, _ size: Int) throws(Errno)
    func setBase(_ ring: VhostRing, _ index: UInt16) throws(Errno)
    func setAddresses(_ ring: VhostRing, _ addresses: VhostRingAddresses) throws(Errno)
    func setEvent(_ ring: VhostRing, _ event: VhostEvent, _ file: OpenFile) throws(Errno)
    func setBackend(_ ring: VhostRing, _ queue: OpenFile?) throws(Errno)
}

/// Where vhost-net devices come from.
public protocol VhostSource: Sendable {
    /// - Throws: why there is none, with what can be done about it.
    func open() throws(HostFailure) -> any VhostKernel
}

/// `/dev/vhost-net`.
public struct KernelVhost: VhostSource {
    let path: String

    public init() { self.init(path: "/dev/vhost-net") }

    init(path: String) { self.path = path }

    public func open() throws(HostFailure) -> any VhostKernel {
        do throws(Errno) {
            return OpenVhost(try OpenFile(path: path, flags: O_RDWR))
        } catch {
            switch error {
            case .noSuchFileOrDirectory, .noSuchAddressOrDevice, Errno(rawValue: ENODEV):
                throw HostFailure(.notFound, "the kernel has no \(path); load the module vhost_net", errno: error)
            default: throw HostFailure("\(path) cannot be opened", error)
            }
        }
    }
}

/// A descriptor of `/dev/vhost-net`.
private final class OpenVhost: VhostKernel {
    private let file: OpenFile

    init(_ file: OpenFile) { self.file = file }

    private func check(_ status: CInt) throws(Errno) {
        if status != 0 { throw Errno(rawValue: status) }
    }

    func features() throws(Errno) -> VhostFeatures {
        var features: UInt64 = 0
        try check(unsafe vhost_get_features(file.descriptor, &features))
        return VhostFeatures(rawValue: features)
    }

    func setFeatures(_ features: VhostFeatures) throws(Errno) {
        try check(vhost_set_features(file.descriptor, features.rawValue))
    }

    func setOwner() throws(Errno) { try check(vhost_set_owner(file.descriptor)) }

    func setMemory(_ first: VhostRegion, _ second: VhostRegion) throws(Errno) {
        let regions = [first, second].map {
            vhost_memory_region(
                guest_phys_addr: $0.name,
                memory_size: $0.byteCount,
                userspace_addr: $0.address,
                flags_padding: 0
            )
        }
        // SAFETY: two regions, for the time of the call.
        try check(unsafe regions.withUnsafeBufferPointer { unsafe vhost_set_memory(file.descriptor, $0.baseAddress) })
    }

    func setSize(_ ring: VhostRing, _ size: Int) throws(Errno) {
        try check(vhost_set_ring_size(file.descriptor, ring.rawValue, UInt32(size)))
    }

    func setBase(_ ring: VhostRing, _ index: UInt16) throws(Errno) {
        try check(vhost_set_ring_base(file.descriptor, ring.rawValue, UInt32(index)))
    }

    func setAddresses(_ ring: VhostRing, _ addresses: VhostRingAddresses) throws(Errno) {
        try check(
            vhost_set_ring_addresses(
                file.descriptor,
                ring.rawValue,
                addresses.descriptors,
                addresses.available,
                addresses.used
            )
        )
    }

    func setEvent(_ ring: VhostRing, _ event: VhostEvent, _ file: OpenFile) throws(Errno) {
        let event = vhost_event(rawValue: event.rawValue)
        try check(vhost_set_ring_event(self.file.descriptor, ring.rawValue, event, file.descriptor))
    }

    func setBackend(_ ring: VhostRing, _ queue: OpenFile?) throws(Errno) {
        try check(vhost_set_backend(file.descriptor, ring.rawValue, queue?.descriptor ?? -1))
    }
}

/// For devices whose packets no thread of the kernel can carry, and where that is not wanted.
public struct NoVhost: VhostSource {
    private let reason: String

    /// - Parameter reason: for people.
    public init(_ reason: String) { self.reason = reason }

    public func open() throws(HostFailure) -> any VhostKernel { throw HostFailure(.notFound, reason) }
}
