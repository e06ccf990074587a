// The host of a SocketNetwork: a small learning switch.

internal import CLinux
internal import Glibc
public import HostIO
internal import HostNetwork
internal import SharedRing
internal import Synchronization
public import SystemPackage

/// Relays packets between the devices that are connected to its sockets, by destination address; packets to an unknown
/// address go to all others. If a receiver's socket is full the packet is dropped; nobody ever waits.
///
/// A device keeps its port while its connections come and go: after a worker's death the switch learns its address
/// again with the successor's first packet at the latest. All work is done on one loop of its own.
public final class PacketExchange: CompletionTarget, Sendable {
    /// The traffic of a device's sockets. `received` came from the device.
    public struct Counters: Hashable, Sendable {
        public var receivedPackets: UInt64 = 0
        public var receivedBytes: UInt64 = 0
        public var sentPackets: UInt64 = 0
        public var sentBytes: UInt64 = 0
        /// Packets for the device that found its socket full.
        public var dropped: UInt64 = 0
        /// Connections that are open now.
        public var queues = 0
    }

    private struct Device {
        var listener: OpenFile
        var slot: UInt32
        var queues: [UInt32] = []
        var counters = Counters()
    }

    private enum Place {
        case listener(of: String)
        case queue(of: String, file: OpenFile)
    }

    private struct State {
        var devices: [String: Device] = [:]
        /// What each slot of the loop stands for.
        var places: [UInt32: Place] = [:]
        var lastSlot: UInt32 = 0
        /// The device that an address was last seen at.
        var addresses: [UInt64: String] = [:]
        var target: TargetID?
    }

    /// Packets of one queue before the others have their turn.
    private static let turn = 64
    private static let addressLimit = 4096
    private static let packetLimit = 1 << 17

    private let directory: FilePath
    private let loop: EventLoop
    private let state = Mutex(State())
    /// One packet; used on the loop, only.
    private let packet: PrivatePages

    /// Starts the exchange; it has no devices yet.
    public init(directory: FilePath) throws(Errno) {
        self.directory = directory
        packet = try PrivatePages(byteCount: PacketExchange.packetLimit)
        loop = try EventLoop(name: "exchange")
        signal(SIGPIPE, SIG_IGN)
        loop.perform { self.state.withLock { $0.target = self.loop.attach(self) } }
    }

    /// Listens for a device's queues at `<directory>/<name>`, in place of a dead exchange's socket there.
    public func add(_ name: String) throws(HostFailure) {
        try InterfaceName.check(name)
        let path = directory.appending(name)
        let file = OpenFile(adopting: unix_packet_socket(1))
        // SAFETY: the path lives, NUL-terminated, until the calls return.
        if file.descriptor < 0 { throw .system("\(path): no socket", errno) }
        _ = unsafe unlink(path.string)
        if unsafe unix_bind(file.descriptor, path.string) < 0 { throw .system("\(path): no socket", errno) }
        if listen(file.descriptor, 64) < 0 { throw .system("\(path): no socket", errno) }
        loop.perform {
            self.state.withLock { state in
                let slot = self.watch(file, .listener(of: name), &state)
                state.devices[name] = Device(listener: file, slot: slot)
            }
        }
    }

    /// Closes a device's sockets and forgets it.
    public func remove(_ name: String) {
        _ = unsafe unlink(directory.appending(name).string)
        loop.perform {
            self.state.withLock { state in
                guard let device = state.devices.removeValue(forKey: name) else { return }
                for slot in device.queues { self.close(slot, &state) }
                if let target = state.target {
                    self.loop.unwatch(device.listener.descriptor, target: target, slot: device.slot)
                }
                state.places[device.slot] = nil
                state.addresses = state.addresses.filter { $0.value != name }
            }
        }
    }

    /// What passed a device's sockets so far; nil for one that was not added.
    public func counters(of name: String) -> Counters? {
        state.withLock { state in
            guard let device = state.devices[name] else { return nil }
            var counters = device.counters
            counters.queues = device.queues.count
            return counters
        }
    }

    /// Ends the exchange; all its sockets are closed.
    public func shutDown() {
        for name in state.withLock({ Array($0.devices.keys) }) { remove(name) }
        loop.perform {
            self.state.withLock { state in
                if let target = state.target { self.loop.detach(target) }
            }
        }
        loop.shutDown()
    }

    public func completed(_ completions: borrowing CompletionBatch) {
        for position in 0..<completions.count {
            let slot = completions[position].slot
            state.withLock { state in
                switch state.places[slot] {
                case .listener(let name): accept(name, &state)
                case .queue(let name, let file): relay(slot, name, file, &state)
                case nil: return
                }
            }
        }
    }
}

// On the loop.
extension PacketExchange {
    private func watch(_ file: OpenFile, _ place: Place, _ state: inout State) -> UInt32 {
        state.lastSlot &+= 1
        let slot = state.lastSlot
        state.places[slot] = place
        if let target = state.target { loop.watchReadable(file.descriptor, target: target, slot: slot) }
        return slot
    }

    private func accept(_ name: String, _ state: inout State) {
        guard let listener = state.devices[name]?.listener else { return }
        while true {
            let descriptor = unix_accept(listener.descriptor, 1)
            if descriptor < 0 { return }
            let file = OpenFile(adopting: descriptor)
            unix_widen(descriptor, SocketNetwork.bufferBytes)
            let slot = watch(file, .queue(of: name, file: file), &state)
            state.devices[name]?.queues.append(slot)
        }
    }

    private func close(_ slot: UInt32, _ state: inout State) {
        guard case .queue(let name, let file) = state.places.removeValue(forKey: slot) else { return }
        if let target = state.target { loop.unwatch(file.descriptor, target: target, slot: slot) }
        state.devices[name]?.queues.removeAll { $0 == slot }
    }

    /// Takes what a queue has, up to a turn's worth; the rest comes after the others' turns.
    private func relay(_ slot: UInt32, _ name: String, _ file: OpenFile, _ state: inout State) {
        for _ in 0..<PacketExchange.turn {
            // SAFETY: the buffer is ours, on this thread, and as long as the kernel is told.
            let count = unsafe recv(
                file.descriptor,
                packet.unsafeAddress(at: 0, count: PacketExchange.packetLimit),
                PacketExchange.packetLimit,
                0
            )
            if count < 0, errno == EAGAIN { return }
            if count <= 0 { return close(slot, &state) }
            deliver(count, from: name, &state)
        }
        loop.perform {
            self.state.withLock { state in
                if case .queue = state.places[slot] { self.relay(slot, name, file, &state) }
            }
        }
    }

    /// Hands on the packet in the buffer.
    private func deliver(_ count: Int, from name: String, _ state: inout State) {
        state.devices[name]?.counters.receivedPackets &+= 1
        state.devices[name]?.counters.receivedBytes &+= UInt64(count)
        let frame = FrameFacts(packet.slot(at: 0, byteCount: count))
        guard let frame else { return }
        if !frame.isFromGroup {
            if state.addresses.count >= PacketExchange.addressLimit { state.addresses.removeAll() }
            state.addresses[frame.source] = name
        }
        if !frame.isToGroup, let receiver = state.addresses[frame.destination] {
            if receiver != name { send(count, frame.flow, to: receiver, &state) }
            return
        }
        for receiver in state.devices.keys where receiver != name { send(count, frame.flow, to: receiver, &state) }
    }

    private func send(_ count: Int, _ flow: UInt32, to name: String, _ state: inout State) {
        guard let queues = state.devices[name]?.queues, !queues.isEmpty,
            case .queue(_, let file) = state.places[queues[Int(flow) % queues.count]]
        else { return }
        // SAFETY: `count` bytes of the buffer are a packet; the kernel copies them during the call.
        let sent = unsafe unix_send(file.descriptor, packet.unsafeAddress(at: 0, count: count), count)
        if sent == count {
            state.devices[name]?.counters.sentPackets &+= 1
            state.devices[name]?.counters.sentBytes &+= UInt64(count)
        } else {
            state.devices[name]?.counters.dropped &+= 1
        }
    }
}

/// The fields of a packet that a switch uses.
struct FrameFacts {
    let destination: UInt64
    let source: UInt64
    /// The same for all packets of a connection, so that they stay in order on one queue.
    let flow: UInt32

    var isToGroup: Bool { destination >> 40 & 1 != 0 }
    var isFromGroup: Bool { source >> 40 & 1 != 0 }

    /// Nil for a packet that is shorter than its headers.
    init?(_ packet: Slot) {
        let start = PacketQueue.headerBytes
        if packet.byteCount < start + 14 { return nil }
        func number(_ range: Range<Int>) -> UInt64 { range.reduce(0) { $0 << 8 | UInt64(packet.u8($1)) } }
        destination = number(start..<start + 6)
        source = number(start + 6..<start + 12)
        let body = start + 14
        let fields: [Range<Int>]
        switch number(start + 12..<start + 14) {
        // Protocol, addresses and (without options) ports.
        case 0x0800 where packet.byteCount >= body + 24: fields = [body + 9..<body + 10, body + 12..<body + 24]
        case 0x86dd where packet.byteCount >= body + 44: fields = [body + 6..<body + 7, body + 8..<body + 44]
        default: fields = [start..<start + 12]
        }
        var hash: UInt32 = 0x811c_9dc5
        for field in fields { for index in field { hash = (hash ^ UInt32(packet.u8(index))) &* 0x0100_0193 } }
        flow = hash ^ hash >> 16
    }
}
