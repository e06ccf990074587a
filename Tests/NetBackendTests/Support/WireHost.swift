// The host's interfaces as socket pairs, whose other ends are in the test's hands.

internal import Glibc
internal import HostIO
internal import HostNetwork
internal import Synchronization
internal import TestSupport
internal import XenWire

/// A frame as a TAP gives and takes it.
struct WireFrame: Hashable, Sendable {
    var header = VirtioNetHeader()
    /// From the destination address on.
    var bytes: [UInt8]
}

/// Interfaces stay when backends die, until they are removed, as persistent TAPs do.
final class WireHost: NetworkHost {
    private let devices = Mutex<[String: WireDevice]>([:])
    private let refusals = Mutex<[String: HostFailure]>([:])
    private let refused = Mutex(0)
    private let vhost: any VhostSource

    /// How often an interface was not made.
    var refusalCount: Int { refused.withLock { $0 } }

    init(vhost: any VhostSource) { self.vhost = vhost }

    /// Why an interface cannot be made; nil: it can.
    func refuse(_ name: String, _ failure: HostFailure?) { refusals.withLock { $0[name] = failure } }

    func open(_ plan: InterfacePlan) throws(HostFailure) -> any PacketDevice {
        if let failure = refusals.withLock({ $0[plan.name] }) {
            refused.withLock { $0 += 1 }
            throw failure
        }
        return devices.withLock { devices in
            let device = devices[plan.name] ?? WireDevice(plan, vhost)
            devices[plan.name] = device
            return device
        }
    }

    func remove(_ plan: InterfacePlan) throws(HostFailure) { devices.withLock { $0[plan.name] = nil } }

    /// nil: there is no such interface.
    subscript(name: String) -> WireDevice? { devices.withLock { $0[name] } }
}

/// One interface. Its queues stay for as long as their number does not change.
final class WireDevice: PacketDevice {
    private struct State {
        var queues: [PacketQueue] = []
        var ends: [OpenFile] = []
        var offloads: [PacketOffloads] = []
        var carriers: [Bool] = []
        var keeper: WireKeeper?
        var keptPlaces: [KeptPlace] = []
        var nameOwner: HostFailure?
    }
    let plan: InterfacePlan
    let vhost: any VhostSource
    private let state = Mutex(State())
    private static let bufferBytes: CInt = 16 << 20
    private static let frameBytes = 17 * 4096

    init(_ plan: InterfacePlan, _ vhost: any VhostSource) {
        self.plan = plan
        self.vhost = vhost
    }

    var name: String { plan.name }
    var droppedByHost: UInt64 { 0 }
    /// What was set, in order.
    var offloads: [PacketOffloads] { state.withLock { $0.offloads } }
    var carriers: [Bool] { state.withLock { $0.carriers } }
    var queueCount: Int { state.withLock { $0.queues.count } }

    func openQueues(_ count: Int) throws(HostFailure) -> [PacketQueue] {
        let pairs = state.withLock { state -> [PacketQueue]? in
            if state.queues.count != count {
                state.queues = []
                state.ends = []
                for _ in 0..<count {
                    guard let (ours, theirs) = WireDevice.pair() else { return nil }
                    state.queues.append(PacketQueue(ours))
                    state.ends.append(theirs)
                }
            }
            return state.queues
        }
        guard let pairs else { throw HostFailure(.host, "no sockets") }
        return pairs
    }

    func setOffloads(_ offloads: PacketOffloads) throws(HostFailure) {
        state.withLock { $0.offloads.append(offloads) }
    }

    func setCarrier(_ isUp: Bool) throws(HostFailure) { state.withLock { $0.carriers.append(isUp) } }

    func keepPlace(
        named name: String?,
        _ placement: InterfacePlan.Placement?,
        mtu: UInt32?
    ) throws(HostFailure) -> (any PlaceKeeper)? {
        let (keeper, failure) = state.withLock { state in
            state.keptPlaces.append(KeptPlace(name: name, placement: placement, mtu: mtu))
            if state.nameOwner == nil { state.keeper = WireKeeper() }
            return (state.keeper, state.nameOwner)
        }
        if let failure { throw failure }
        return keeper
    }

    /// The last keeper.
    var keeper: WireKeeper? { state.withLock { $0.keeper } }
    /// What was to be kept, in order.
    var keptPlaces: [KeptPlace] { state.withLock { $0.keptPlaces } }
    /// Somebody else has the name from now on.
    func nameIsTaken(_ failure: HostFailure?) { state.withLock { $0.nameOwner = failure } }

    fileprivate static func pair() -> (OpenFile, OpenFile)? {
        var numbers: [CInt] = [-1, -1]
        let kind = CInt(SOCK_SEQPACKET.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
        guard unsafe socketpair(AF_UNIX, kind, 0, &numbers) == 0 else { return nil }
        for number in numbers {
            var bytes = bufferBytes
            _ = unsafe setsockopt(number, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, socklen_t(MemoryLayout<CInt>.size))
        }
        return (OpenFile(adopting: numbers[0]), OpenFile(adopting: numbers[1]))
    }

    private func end(_ queue: Int) -> OpenFile { state.withLock { $0.ends[queue] } }

    // MARK: the host's side

    /// Gives a frame to the interface.
    /// - Returns: false if its queue is full.
    @discardableResult
    func send(_ frame: WireFrame, queue: Int = 0) -> Bool {
        let header = frame.header
        var message: [UInt8] = [header.flags.rawValue, header.segmentKind.rawValue]
        for number in [header.headerLength, header.segmentSize, header.checksumStart, header.checksumOffset] {
            message += [UInt8(truncatingIfNeeded: number), UInt8(truncatingIfNeeded: number >> 8)]
        }
        message += [UInt8](repeating: 0, count: PacketQueue.headerBytes - message.count) + frame.bytes
        return unsafe Glibc.send(end(queue).descriptor, message, message.count, CInt(MSG_NOSIGNAL))
            == message.count
    }

    /// A frame that came out of the interface; nil if there is none now.
    func receive(queue: Int = 0) -> WireFrame? {
        let end = end(queue)
        let message = unsafe [UInt8](unsafeUninitializedCapacity: WireDevice.frameBytes) { room, count in
            count = unsafe max(0, read(end.descriptor, room.baseAddress, room.count))
        }
        guard message.count > PacketQueue.headerBytes else { return nil }
        func number(_ offset: Int) -> UInt16 { UInt16(message[offset]) | UInt16(message[offset + 1]) << 8 }
        var header = VirtioNetHeader()
        header.flags = VirtioNetHeader.Flags(rawValue: message[0])
        header.segmentKind = VirtioNetHeader.Kind(rawValue: message[1])
        header.headerLength = number(2)
        header.segmentSize = number(4)
        header.checksumStart = number(6)
        header.checksumOffset = number(8)
        return WireFrame(header: header, bytes: Array(message[PacketQueue.headerBytes...]))
    }

    /// Waits for a frame.
    func next(queue: Int = 0, within limit: Duration = .seconds(10)) async -> WireFrame? {
        var frame: WireFrame?
        _ = await eventually(within: limit) {
            frame = receive(queue: queue)
            return frame != nil
        }
        return frame
    }

    /// Throws away what came out.
    /// - Returns: how many bytes of frames it was.
    func drain(queue: Int = 0) -> Int {
        let end = end(queue)
        var (total, byte) = (0, UInt8(0))
        while true {
            let count = unsafe recv(end.descriptor, &byte, 1, CInt(MSG_TRUNC | MSG_DONTWAIT))
            guard count > 0 else { return total }
            total += count - PacketQueue.headerBytes
        }
    }

    /// Packets that nobody has taken out of the interface's queue. They are gone then.
    func waiting(queue: Int = 0) -> Int {
        let file = state.withLock { $0.queues[queue].file }
        var (count, byte) = (0, UInt8(0))
        while unsafe recv(file.descriptor, &byte, 1, CInt(MSG_DONTWAIT)) > 0 { count += 1 }
        return count
    }

    /// What a queue's reads and writes say from now on is what a TAP's say whose interface was deleted (tun.c: a
    /// descriptor without an interface is EBADFD).
    /// - Returns: false where the machine has no TAPs.
    func vanish(queue: Int = 0) -> Bool {
        let file = unsafe open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC)
        guard file >= 0 else { return false }
        defer { close(file) }
        return state.withLock { dup2(file, $0.queues[queue].file.descriptor) >= 0 }
    }
}

/// What a device was asked to keep.
struct KeptPlace: Hashable, Sendable {
    let name: String?
    let placement: InterfacePlan.Placement?
    let mtu: UInt32?
}

/// A keeper whose interface the test changes by words.
final class WireKeeper: PlaceKeeper {
    private let ends: (ours: OpenFile, theirs: OpenFile)
    private let reports = Mutex<[PlaceReport]>([])
    private let looked = Mutex(0)

    /// - Returns: nil if there are no sockets.
    init?() {
        guard let ends = WireDevice.pair() else { return nil }
        self.ends = ends
    }

    var descriptor: CInt { ends.ours.descriptor }
    /// How often the interface was looked at.
    var looks: Int { looked.withLock { $0 } }

    func takeNews() {
        var byte: UInt8 = 0
        while unsafe read(ends.ours.descriptor, &byte, 1) > 0 {}
    }

    func look() -> [PlaceReport] {
        looked.withLock { $0 += 1 }
        return reports.withLock { reports in
            defer { reports = [] }
            return reports
        }
    }

    /// Somebody changes the interface; the next look will report this.
    func change(_ report: PlaceReport) {
        reports.withLock { $0.append(report) }
        var byte: UInt8 = 1
        _ = unsafe write(ends.theirs.descriptor, &byte, 1)
    }
}
