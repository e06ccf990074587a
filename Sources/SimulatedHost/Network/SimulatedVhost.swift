// A double of the kernel's vhost-net, for queues that are sockets: the same rings, the same rules, and lies on demand.

internal import CLinux
internal import Glibc
public import HostIO
public import HostNetwork
internal import Synchronization
public import SystemPackage

/// Makes kernel threads for the queues of a `PacketDevice` whose descriptors are packet sockets.
///
/// As the kernel's (drivers/vhost/net.c): buffers are taken in order and returned in order, used entries of up to 64 packets
/// become visible at once, a packet from the host takes as many pages as it needs or waits for a kick, kicks are asked for
/// only when there is nothing left to do, descriptors outside the memory table or with the wrong direction are an error
/// that stops the ring until the next kick, and after 256 packets the other ring has its turn. Whatever the owner's
/// addresses name is used at once: nothing is copied before it is asked for.
///
/// It does not imitate: packets that the kernel has taken off the TAP's queue and holds (up to 64, which a death takes),
/// `experimental_zcopytx`, busy polling, an IOTLB, logging of writes.
public final class SimulatedVhost: VhostSource {
    /// What can be refused.
    public enum Call: Hashable, Sendable, CaseIterable {
        case open, features, setFeatures, setOwner, setMemory, setSize, setBase, setAddresses
        case setKick, setCall, setError, setBackend
    }

    /// What the kernel never does.
    public enum Lie: Hashable, Sendable {
        /// The used index goes on by so much more than buffers were used.
        case jump(UInt16)
        /// The id of a used entry.
        case id(UInt32)
        /// The length of a used entry.
        case length(UInt32)
        /// `num_buffers` of a packet.
        case buffers(UInt16)
    }

    struct Behaviour {
        var features: VhostFeatures = [.version1, .mergeable, .eventIndex]
        var refused: (call: Call, after: Int, error: Errno)?
        var lies: [VhostRing: Lie] = [:]
        var isHanging = false
        var batch = 64
    }

    let behaviour = Mutex(Behaviour())
    private let devices = Mutex<[WeakDevice]>([])

    private struct WeakDevice { weak let device: SimulatedVhostDevice? }

    public init() {}

    /// - Parameters:
    ///   - call: fails from now on; nil: none.
    ///   - after: so many of them succeed first.
    public func refuse(_ call: Call?, after: Int = 0, _ error: Errno = .notPermitted) {
        behaviour.withLock { $0.refused = call.map { ($0, after, error) } }
    }

    /// What devices that are opened from now on offer.
    public func offer(_ features: VhostFeatures) { behaviour.withLock { $0.features = features } }

    /// Packets whose used entries become visible together.
    public func announce(every packets: Int) { behaviour.withLock { $0.batch = packets } }

    /// Lies once, about the next buffer of that ring.
    public func lie(_ lie: Lie, _ ring: VhostRing) { behaviour.withLock { $0.lies[ring] = lie } }

    /// The threads do nothing until told otherwise.
    public func hang(_ isHanging: Bool) {
        behaviour.withLock { $0.isHanging = isHanging }
        if !isHanging { for device in present { device.wake() } }
    }

    /// Calls, errors and kicks that mean nothing.
    public func ringAllBells() { for device in present { device.ringAllBells() } }

    /// Devices that are open now.
    public var openCount: Int { present.count }

    /// The memory that the devices may use.
    public var regions: [VhostRegion] { present.flatMap(\.regions) }

    private var present: [SimulatedVhostDevice] { devices.withLock { $0.compactMap(\.device) } }

    public func open() throws(HostFailure) -> any VhostKernel {
        do throws(Errno) {
            try allow(.open)
            let device = try SimulatedVhostDevice(self)
            devices.withLock { $0.append(WeakDevice(device: device)) }
            return device
        } catch {
            throw HostFailure("the simulated vhost-net cannot be opened", error)
        }
    }

    func allow(_ call: Call) throws(Errno) {
        let error = behaviour.withLock { behaviour -> Errno? in
            guard let refused = behaviour.refused, refused.call == call else { return nil }
            behaviour.refused?.after -= 1
            return refused.after <= 0 ? refused.error : nil
        }
        if let error { throw error }
    }

    func takeLie(_ ring: VhostRing) -> Lie? { behaviour.withLock { $0.lies.removeValue(forKey: ring) } }
}
