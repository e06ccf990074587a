// Packets through rings in our memory, which a thread of the kernel empties into the TAP and fills from it.

internal import CLinux
internal import Glibc
public import HostIO
public import SharedRing
internal import SystemPackage

/// A queue whose packets the kernel's vhost-net carries (drivers/vhost/net.c): no system call of ours per packet.
///
/// What a turn grants out of a guest lies in `sendPages` where a descriptor names it; what the kernel has received lies in
/// `receivePages`, in as many of the pages there as it takes (`VIRTIO_NET_F_MRG_RXBUF`). The pages are given out in turn
/// and come back in turn, so that a packet's lie one behind the other; the memory is mapped twice in a row, so that this
/// holds at its end, too. The kernel's thread knows these two areas and the two rings, and nothing else of the process.
///
/// The rings belong to the loop that the port is used on, from its first use.
@safe
public final class VhostPort: PacketPort, @unchecked Sendable {
    /// Descriptors of a ring: as many as a frontend's ring has slots.
    static let ringSize = 256
    static let page = 4096
    /// Bytes of packets that the kernel may have at once, in each direction.
    static let areaBytes = ringSize * page
    /// The 12 bytes of `struct virtio_net_hdr_mrg_rxbuf` before a frame.
    static let headerBytes = PacketQueue.headerBytes
    /// Most descriptors and most bytes of a packet to the host: 19 pieces, each in a page of its own, and the header.
    static let packetDescriptors = 20
    static let packetBytes = 21 * page
    /// Names of the areas' first bytes in descriptors.
    static let sendName: UInt64 = 0
    static let receiveName: UInt64 = 1 << 32

    private let queue: PacketQueue
    private let kernel: any VhostKernel
    /// Both rings, and nothing else.
    private let rings: PrivatePages
    public let sendPages: PrivatePages
    public let receivePages: PrivatePages
    let kicks: [OpenFile]
    let calls: [OpenFile]
    let error: OpenFile
    private var isOpen = true

    // To the host. Places in the area are numbered without end.
    var transmit: SplitRing
    /// The next free byte, and the first of the oldest packet that the kernel has.
    var position = 0
    var tail = 0
    /// Where this turn's places began.
    var turnStart = 0
    var nextDescriptor = 0
    var descriptorsInUse = 0
    /// Pieces that this turn has placed: each takes a descriptor at most, once its packet is described.
    var placed = 0
    /// What the kernel has, in its order, from `firstSent` on; the array goes round.
    var sent: [SentPacket]
    var firstSent = 0
    var doneCount: UInt64 = 0
    /// The packet that is being described.
    var head = 0
    var run = (offset: 0, byteCount: 0)
    var lastPiece = (offset: 0, byteCount: 0)

    // From the host. Page `n` is descriptor `n`; both go round.
    var receive: SplitRing
    /// The page that is used next, and the next to be given to the kernel.
    var firstPage = 0
    var nextPage = 0
    /// What `receive` found: packets and the pages of each.
    var found: [(packet: ReceivedPacket, pages: Int)] = []
    /// Of those, the ones that are not kept.
    var consumed = 0
    public internal(set) var hasMore = true

    struct SentPacket {
        var head = 0
        var descriptors = 0
        /// Where its bytes end.
        var end = 0
    }

    /// Starts a kernel thread on a queue. Blocks for as long as that takes; the port can then be given to its loop.
    /// - Throws: which step failed; nothing is left of it then.
    public init(_ queue: PacketQueue, _ source: any VhostSource) throws(HostFailure) {
        self.queue = queue
        kernel = try source.open()
        let transmitLayout = SplitRingLayout(size: VhostPort.ringSize, at: 0)
        let receiveLayout = SplitRingLayout(size: VhostPort.ringSize, at: transmitLayout.end)
        let memory = try VhostPort.step("memory for packets") { () throws(Errno) in
            (
                try PrivatePages(byteCount: receiveLayout.end),
                try PrivatePages.mirrored(byteCount: VhostPort.areaBytes),
                try PrivatePages.mirrored(byteCount: VhostPort.areaBytes)
            )
        }
        (rings, sendPages, receivePages) = memory
        kicks = [try VhostPort.event(), try VhostPort.event()]
        calls = [try VhostPort.event(), try VhostPort.event()]
        error = try VhostPort.event()
        sent = Array(repeating: SentPacket(), count: VhostPort.ringSize)
        found.reserveCapacity(PacketMemory.packets)
        let features = try VhostPort.negotiate(kernel)
        let usesEventIndex = features.contains(.eventIndex)
        transmit = SplitRing(rings, transmitLayout, usesEventIndex: usesEventIndex)
        receive = SplitRing(rings, receiveLayout, usesEventIndex: usesEventIndex)
        for page in 0..<VhostPort.ringSize {
            let name = VhostPort.receiveName + UInt64(page * VhostPort.page)
            receive.setDescriptor(page, address: name, byteCount: VhostPort.page, isWritable: true)
        }
        do throws(HostFailure) { try start(transmitLayout, receiveLayout) } catch {
            close()
            throw error
        }
    }

    deinit { stop() }

    private static func event() throws(HostFailure) -> OpenFile {
        let descriptor = eventfd(0, CInt(EFD_CLOEXEC | EFD_NONBLOCK))
        if descriptor < 0 { throw .system("no eventfd for vhost-net", errno) }
        return OpenFile(adopting: descriptor)
    }

    private static func step<Value>(
        _ name: String,
        _ body: () throws(Errno) -> Value
    ) throws(HostFailure) -> Value {
        do throws(Errno) { return try body() } catch { throw HostFailure("vhost-net: \(name)", error) }
    }

    private static func negotiate(_ kernel: any VhostKernel) throws(HostFailure) -> VhostFeatures {
        let needed: VhostFeatures = [.version1, .mergeable]
        let offered = try step("VHOST_GET_FEATURES") { () throws(Errno) in try kernel.features() }
        guard offered.isSuperset(of: needed) else {
            throw HostFailure(.host, "vhost-net lacks VIRTIO_F_VERSION_1 or VIRTIO_NET_F_MRG_RXBUF")
        }
        let features = offered.intersection(needed.union(.eventIndex))
        try step("VHOST_SET_OWNER") { () throws(Errno) in try kernel.setOwner() }
        try step("VHOST_SET_FEATURES") { () throws(Errno) in try kernel.setFeatures(features) }
        return features
    }

    private func start(_ transmitLayout: SplitRingLayout, _ receiveLayout: SplitRingLayout) throws(HostFailure) {
        // A packet to the host may run over the area's end; what is received is described page by page.
        let areas = (
            region(VhostPort.sendName, sendPages, 2 * VhostPort.areaBytes),
            region(VhostPort.receiveName, receivePages, VhostPort.areaBytes)
        )
        try VhostPort.step("VHOST_SET_MEM_TABLE") { () throws(Errno) in try kernel.setMemory(areas.0, areas.1) }
        for (ring, layout) in [(VhostRing.receive, receiveLayout), (.transmit, transmitLayout)] {
            try VhostPort.step("VHOST_SET_VRING_NUM") { () throws(Errno) in
                try kernel.setSize(ring, VhostPort.ringSize)
            }
            try VhostPort.step("VHOST_SET_VRING_BASE") { () throws(Errno) in try kernel.setBase(ring, 0) }
            try VhostPort.step("VHOST_SET_VRING_ADDR") { () throws(Errno) in
                try kernel.setAddresses(ring, addresses(layout))
            }
            let index = Int(ring.rawValue)
            for (event, file) in [(VhostEvent.kick, kicks[index]), (.call, calls[index]), (.error, error)] {
                try VhostPort.step("VHOST_SET_VRING_\(event.ioctl)") { () throws(Errno) in
                    try kernel.setEvent(ring, event, file)
                }
            }
        }
        for ring in VhostRing.allCases {
            try VhostPort.step("VHOST_NET_SET_BACKEND") { () throws(Errno) in
                try kernel.setBackend(ring, queue.file)
            }
        }
    }

    private func region(_ name: UInt64, _ pages: PrivatePages, _ byteCount: Int) -> VhostRegion {
        VhostRegion(name: name, byteCount: UInt64(byteCount), address: address(pages, 0))
    }

    private func addresses(_ layout: SplitRingLayout) -> VhostRingAddresses {
        VhostRingAddresses(
            descriptors: address(rings, layout.descriptors),
            available: address(rings, layout.available),
            used: address(rings, layout.used)
        )
    }

    /// For the kernel, which this port tells to stop before it lets go of its pages.
    private func address(_ pages: PrivatePages, _ offset: Int) -> UInt64 {
        unsafe UInt64(UInt(bitPattern: pages.unsafeAddress(at: offset, count: 1)))
    }

    func kick(_ ring: VhostRing) { _ = eventfd_write(kicks[Int(ring.rawValue)].descriptor, 1) }

    // MARK: life

    public var receiveDescriptor: CInt { calls[Int(VhostRing.receive.rawValue)].descriptor }
    public var roomDescriptor: CInt? { calls[Int(VhostRing.transmit.rawValue)].descriptor }
    public var errorDescriptor: CInt? { error.descriptor }

    public func takeError() -> Bool {
        var count: UInt64 = 0
        return unsafe eventfd_read(error.descriptor, &count) == 0
    }

    public func look() -> CInt { tun_look(queue.file.descriptor) }

    public func close() { stop() }

    private func stop() {
        guard isOpen else { return }
        isOpen = false
        // Ignored: a ring that never had a queue has none now.
        for ring in VhostRing.allCases { try? kernel.setBackend(ring, nil) }
    }
}

extension VhostEvent {
    /// The end of the ioctl's name.
    var ioctl: String {
        switch self {
        case .kick: "KICK"
        case .call: "CALL"
        case .error: "ERR"
        }
    }
}
