// Several packets in or out of a queue with one system call.

internal import CLinux
internal import Glibc
internal import HostIO
public import SharedRing
public import SystemPackage

/// Packets that go into, or come out of, a `PacketQueue` together.
///
/// A batch is filled (`beginPacket`, then `add` for each piece), sent or received within one turn of one thread, and
/// read with `result(_:)`. Nothing is allocated after `init`. Once it was sent from a thread, it belongs to it.
///
/// A packet of a few pieces costs a TAP 2.5 µs on its way in and 0.8 µs on its way out, of which the system call is
/// the smaller part. Measured on Linux 6.18 on a virtual machine, 60-byte frames, against a writev(2) or readv(2) for
/// each: 8 packets with one io_uring_enter(2) take 0.93 (in) and 0.98 (out) of the time, 32 take 0.89 and 0.89, but a
/// single one 1.3 and 1.6. So few packets go by plain calls (`HostNetwork.docc` has the table), and the gain grows
/// where a system call is dear, as it is in a PV domain, whose calls all pass through the hypervisor.
@safe
public struct PacketBatch: ~Copyable {
    /// Most runs of memory in one packet.
    public static let runsPerPacket = 24
    /// From this many packets on, the ring is faster than one call per packet.
    static let ringMinimum = 4

    // SAFETY: `vectors` has `runCapacity` entries, of which the first `runCount` are set; `firsts` and `results` have
    // `packetCapacity` entries, of which the first `packetCount` of `firsts` and all of `results` are set. All three
    // are made in init and freed in deinit. The addresses in `vectors` are valid while the caller holds the pages that
    // it added: until `send` or `receive` has returned, after which nobody uses them.
    private let vectors: UnsafeMutablePointer<iovec>
    private let firsts: UnsafeMutablePointer<Int32>
    private let results: UnsafeMutablePointer<Int32>
    private let packetCapacity: Int
    private let runCapacity: Int
    private var runCount = 0
    private var ring: PacketRing?
    /// Packets that the last `receive` found.
    private var expected = 0

    /// The last `receive` found nothing more in the queue.
    public private(set) var isDry = false

    /// Packets begun since the last `removeAll`.
    public private(set) var packetCount = 0

    /// Makes an empty batch with room for `packets` packets of together `runs` runs.
    /// - Throws: `ENOMEM`.
    public init(packets: Int, runs: Int) throws(Errno) {
        try self.init(packets: packets, runs: runs, ring: PacketRing(entries: UInt32(packets) + 1))
    }

    init(packets: Int, runs: Int, ring: consuming PacketRing?) throws(Errno) {
        precondition(packets > 0 && packets <= 1024 && runs >= packets)
        unsafe vectors = .allocate(capacity: runs)
        unsafe firsts = .allocate(capacity: packets)
        unsafe results = .allocate(capacity: packets)
        unsafe results.initialize(repeating: -EAGAIN, count: packets)
        packetCapacity = packets
        runCapacity = runs
        self.ring = ring
    }

    deinit {
        unsafe vectors.deallocate()
        unsafe firsts.deallocate()
        unsafe results.deallocate()
    }

    /// True if another packet of `runs` runs fits.
    public func hasRoom(runs: Int) -> Bool {
        packetCount < packetCapacity && runs <= runCapacity &- runCount && runs <= PacketBatch.runsPerPacket
    }

    /// Empties the batch.
    public mutating func removeAll() {
        packetCount = 0
        runCount = 0
    }

    /// Begins the next packet; `hasRoom` said yes.
    public mutating func beginPacket() {
        precondition(packetCount < packetCapacity)
        unsafe firsts[packetCount] = Int32(truncatingIfNeeded: runCount)
        packetCount &+= 1
    }

    /// Adds memory to the packet begun last, after what it has. The caller holds `pages`, and leaves the bytes alone,
    /// until `send` or `receive` has returned.
    public mutating func add(_ pages: PrivatePages, offset: Int, byteCount: Int) {
        precondition(packetCount > 0)
        let address = unsafe pages.unsafeAddress(at: offset, count: byteCount)
        let first = unsafe Int(firsts[packetCount &- 1])
        if runCount > first {
            let last = unsafe vectors[runCount &- 1]
            if unsafe last.iov_base + last.iov_len == address {
                unsafe vectors[runCount &- 1].iov_len = last.iov_len &+ byteCount
                return
            }
        }
        precondition(runCount < runCapacity && runCount &- first < PacketBatch.runsPerPacket)
        unsafe vectors[runCount] = iovec(iov_base: address, iov_len: byteCount)
        runCount &+= 1
    }

    /// The result of a packet of the last `send` or `receive`: its bytes (the header among them), or a negated errno:
    /// `-EAGAIN` if there was no room, or no packet; `-EBADFD`, `-EIO` and the like if the device is gone.
    public func result(_ index: Int) -> Int32 {
        precondition(index >= 0 && index < packetCount)
        return unsafe results[index]
    }

    /// Whether a result says that the queue's interface was deleted: tun.c then finds no device behind the descriptor.
    public static func meansGone(_ result: Int32) -> Bool { result == -EBADFD || result == -ENODEV }

    /// Sends the packets in their order. Each has a result of its own: a later one may be accepted although an earlier
    /// one was not.
    public mutating func send(to queue: PacketQueue) {
        let plan = unsafe transfer(queue, writing: true)
        var next = 0
        if packetCount >= PacketBatch.ringMinimum, unsafe ring?.run(plan, first: 0, count: packetCount) == true {
            return
        }
        while next < packetCount {
            unsafe results[next] = unsafe plan.single(next)
            next &+= 1
        }
    }

    /// Receives one packet into each entry until there are no more.
    /// - Returns: entries to look at. One of them may be empty (`-EAGAIN`) if a packet arrived just in time for a later
    ///   one.
    public mutating func receive(from queue: PacketQueue) -> Int {
        let plan = unsafe transfer(queue, writing: false)
        var next = 0
        isDry = false
        var burst = expected
        while next < packetCount, !isDry {
            let count = max(1, min(burst, packetCount &- next))
            let isTogether =
                unsafe count >= PacketBatch.ringMinimum && ring?.run(plan, first: next, count: count) == true
            if !isTogether { unsafe results[next] = unsafe plan.single(next) }
            let end = isTogether ? next &+ count : next &+ 1
            while next < end {
                if unsafe results[next] <= 0 { isDry = true }
                next &+= 1
            }
            // As many at once as came last time, then one to see if there are more, since an empty read is not free.
            burst = isTogether ? 1 : max(expected, next)
        }
        var found = next
        while next < packetCount {
            unsafe results[next] = -EAGAIN
            next &+= 1
        }
        while found > 0, unsafe results[found &- 1] == -EAGAIN { found &-= 1 }
        expected = found
        return found
    }

    @unsafe
    private func transfer(_ queue: PacketQueue, writing: Bool) -> PacketTransfer {
        unsafe PacketTransfer(
            descriptor: queue.file.descriptor,
            isWrite: writing,
            vectors: vectors,
            runCount: runCount,
            firsts: firsts,
            results: results,
            packetCount: packetCount
        )
    }
}

/// The tables of a batch during one `send` or `receive`.
@unsafe
struct PacketTransfer {
    let descriptor: CInt
    let isWrite: Bool
    let vectors: UnsafeMutablePointer<iovec>
    let runCount: Int
    let firsts: UnsafeMutablePointer<Int32>
    let results: UnsafeMutablePointer<Int32>
    let packetCount: Int

    /// The runs of a packet.
    func runs(_ index: Int) -> UnsafeMutableBufferPointer<iovec> {
        let first = unsafe Int(firsts[index])
        let end = unsafe index &+ 1 < packetCount ? Int(firsts[index &+ 1]) : runCount
        return unsafe UnsafeMutableBufferPointer(start: vectors + first, count: end &- first)
    }

    /// Sends or receives one packet with one call.
    func single(_ index: Int) -> Int32 {
        let runs = unsafe runs(index)
        while true {
            let count =
                unsafe isWrite
                ? writev(descriptor, runs.baseAddress, CInt(runs.count))
                : readv(descriptor, runs.baseAddress, CInt(runs.count))
            if count >= 0 { return Int32(truncatingIfNeeded: count) }
            if errno != EINTR { return -errno }
        }
    }
}
