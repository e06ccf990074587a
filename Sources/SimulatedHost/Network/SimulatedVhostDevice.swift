// One open double of vhost-net: its ioctls, and its thread.

internal import CLinux
internal import Glibc
internal import HostIO
internal import HostNetwork
internal import SharedRing
internal import Synchronization
internal import SystemPackage

/// The ioctls check what the kernel's check, in the same order of things: an owner first, a size before a backend.
final class SimulatedVhostDevice: VhostKernel, CompletionTarget {
    private let source: SimulatedVhost
    private let loop: EventLoop
    private let state = Mutex(State())

    struct Ring: ~Copyable {
        var size = 0
        var addresses: VhostRingAddresses?
        var events: [VhostEvent: OpenFile] = [:]
        var queue: OpenFile?
        var server: SplitRingServer?
        /// Used entries that are not announced.
        var pending = 0

        init() {}
    }

    struct State: ~Copyable {
        var isOwned = false
        var features: VhostFeatures = []
        var regions: [VhostRegion] = []
        var receive = Ring()
        var transmit = Ring()
        var target: TargetID?

        init() {}

        subscript(ring: VhostRing) -> Ring {
            _read { if ring == .receive { yield receive } else { yield transmit } }
            _modify { if ring == .receive { yield &receive } else { yield &transmit } }
        }
    }

    /// Slots of completions: a ring's kick, and its queue.
    private enum Slot {
        static func kick(_ ring: VhostRing) -> UInt32 { ring.rawValue }
        static func queue(_ ring: VhostRing) -> UInt32 { 2 + ring.rawValue }
    }

    init(_ source: SimulatedVhost) throws(Errno) {
        self.source = source
        loop = try EventLoop(name: "vhost")
    }

    deinit { loop.shutDown() }

    var regions: [VhostRegion] { state.withLock { $0.regions } }

    // MARK: ioctls

    func features() throws(Errno) -> VhostFeatures {
        try source.allow(.features)
        return source.behaviour.withLock { $0.features }
    }

    func setFeatures(_ features: VhostFeatures) throws(Errno) {
        try source.allow(.setFeatures)
        guard features.isSubset(of: source.behaviour.withLock({ $0.features })) else { throw .notSupportedOnSocket }
        state.withLock { $0.features = features }
    }

    func setOwner() throws(Errno) {
        try source.allow(.setOwner)
        try state.withLock { (state) throws(Errno) in
            if state.isOwned { throw .resourceBusy }
            state.isOwned = true
        }
    }

    /// What needs an owner and a ring without a backend.
    private func change(
        _ ring: VhostRing,
        _ body: (inout Ring) throws(Errno) -> Void
    ) throws(Errno) {
        try state.withLock { (state) throws(Errno) in
            guard state.isOwned else { throw .notPermitted }
            guard state[ring].queue == nil else { throw .resourceBusy }
            try body(&state[ring])
        }
    }

    func setMemory(_ first: VhostRegion, _ second: VhostRegion) throws(Errno) {
        try source.allow(.setMemory)
        try state.withLock { (state) throws(Errno) in
            guard state.isOwned else { throw .notPermitted }
            state.regions = [first, second]
        }
    }

    func setSize(_ ring: VhostRing, _ size: Int) throws(Errno) {
        try source.allow(.setSize)
        try change(ring) { (ring) throws(Errno) in
            guard size > 0, size <= 0xFFFF, size & (size - 1) == 0 else { throw .invalidArgument }
            ring.size = size
        }
    }

    func setBase(_ ring: VhostRing, _ index: UInt16) throws(Errno) {
        try source.allow(.setBase)
        try change(ring) { (_) throws(Errno) in if index != 0 { throw .invalidArgument } }
    }

    func setAddresses(_ ring: VhostRing, _ addresses: VhostRingAddresses) throws(Errno) {
        try source.allow(.setAddresses)
        try change(ring) { (ring) throws(Errno) in
            guard addresses.available & 1 == 0, addresses.used & 3 == 0 else { throw .invalidArgument }
            ring.addresses = addresses
        }
    }

    func setEvent(_ ring: VhostRing, _ event: VhostEvent, _ file: OpenFile) throws(Errno) {
        switch event {
        case .kick: try source.allow(.setKick)
        case .call: try source.allow(.setCall)
        case .error: try source.allow(.setError)
        }
        try change(ring) { (ring) in ring.events[event] = file }
    }

    func setBackend(_ ring: VhostRing, _ queue: OpenFile?) throws(Errno) {
        if queue != nil { try source.allow(.setBackend) }
        try state.withLock { (state) throws(Errno) in
            guard state.isOwned else { throw .notPermitted }
            let usesEventIndex = state.features.contains(.eventIndex)
            if queue != nil {
                guard state[ring].size > 0, let addresses = state[ring].addresses else { throw .badAddress }
                guard let descriptors = unsafe UnsafeMutableRawPointer(bitPattern: UInt(addresses.descriptors)),
                    let available = unsafe UnsafeMutableRawPointer(bitPattern: UInt(addresses.available)),
                    let used = unsafe UnsafeMutableRawPointer(bitPattern: UInt(addresses.used))
                else { throw .badAddress }
                // SAFETY: the owner keeps its ring until `setBackend(ring, nil)` has returned.
                state[ring].server = unsafe SplitRingServer(
                    descriptors: descriptors,
                    available: available,
                    used: used,
                    size: state[ring].size,
                    usesEventIndex: usesEventIndex
                )
            }
            state[ring].queue = queue
        }
        loop.perform { if queue != nil { self.watch(ring) } else { self.unwatch() } }
    }

    /// The loop lets go of a device without queues.
    private func unwatch() {
        let target = state.withLock { state -> TargetID? in
            guard state.receive.queue == nil, state.transmit.queue == nil else { return nil }
            defer { state.target = nil }
            return state.target
        }
        if let target { loop.detach(target) }
    }

    private func watch(_ ring: VhostRing) {
        let files = state.withLock { state -> (TargetID, OpenFile?, OpenFile?) in
            let target = state.target ?? loop.attach(self)
            state.target = target
            return (target, state[ring].events[.kick], state[ring].queue)
        }
        if let kick = files.1 { loop.watchReadable(kick.descriptor, target: files.0, slot: Slot.kick(ring)) }
        guard let queue = files.2 else { return }
        let events = UInt16(ring == .receive ? POLLIN : POLLOUT)
        loop.watch(queue.descriptor, for: events, target: files.0, slot: Slot.queue(ring))
    }

    // MARK: the thread

    func wake() { loop.perform { self.work() } }

    func ringAllBells() {
        state.withLock { state in
            for ring in VhostRing.allCases {
                for event in [VhostEvent.call, .kick] {
                    if let file = state[ring].events[event] { _ = eventfd_write(file.descriptor, 1) }
                }
            }
        }
        wake()
    }

    func completed(_ completions: borrowing CompletionBatch) { work() }

    private func work() {
        if source.behaviour.withLock({ $0.isHanging }) { return }
        let hasMore = state.withLock { state in
            let transmits = transmit(&state)
            return receive(&state) || transmits
        }
        if hasMore { loop.perform { self.work() } }
    }

    /// - Returns: whether it ended before its time.
    private func transmit(_ state: inout State) -> Bool {
        guard let queue = state.transmit.queue, var server = state.transmit.server.take() else { return false }
        let hasMore = transmit(queue, &server, &state)
        state.transmit.server = consume server
        return hasMore
    }

    private func transmit(_ queue: OpenFile, _ server: inout SplitRingServer, _ state: inout State) -> Bool {
        server.silence()
        var count = 0
        while count < 256 {
            guard let (head, pieces) = server.take() else {
                if server.askForKick() {
                    server.silence()
                    continue
                }
                break
            }
            guard var vectors = unsafe vectors(pieces, isWritable: false, state.regions) else {
                fail(.transmit, &state)
                break
            }
            // SAFETY: the owner's memory, which it keeps until it has taken the backend away.
            let sent = unsafe writev(queue.descriptor, &vectors, CInt(vectors.count))
            if sent < 0, errno == EAGAIN || errno == ENOBUFS {
                server.untake(1)
                break
            }
            if sent < 0, errno != EMSGSIZE, errno != EINVAL {
                // The kernel does not return these buffers.
                fail(.transmit, &state)
                break
            }
            put(.transmit, UInt32(head), 0, &server, &state)
            count += 1
        }
        announce(.transmit, &server, &state)
        return count == 256
    }

    private func receive(_ state: inout State) -> Bool {
        guard let queue = state.receive.queue, var server = state.receive.server.take() else { return false }
        let hasMore = receive(queue, &server, &state)
        state.receive.server = consume server
        return hasMore
    }

    private func receive(_ queue: OpenFile, _ server: inout SplitRingServer, _ state: inout State) -> Bool {
        server.silence()
        var count = 0
        while count < 256 {
            var byte: UInt8 = 0
            let size = unsafe recv(queue.descriptor, &byte, 1, CInt(MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT))
            if size <= 0 { break }
            var (heads, pieces, room): ([UInt16], [SplitRingServer.Piece], Int) = ([], [], 0)
            while room < size, let buffer = server.take() {
                heads.append(buffer.head)
                pieces += buffer.pieces
                room += buffer.pieces.map(\.byteCount).reduce(0, +)
            }
            if room < size {
                server.untake(heads.count)
                if server.askForKick() {
                    server.silence()
                    continue
                }
                break
            }
            guard var vectors = unsafe vectors(pieces, isWritable: true, state.regions) else {
                server.untake(heads.count)
                fail(.receive, &state)
                break
            }
            // SAFETY: as in `transmit`.
            guard unsafe readv(queue.descriptor, &vectors, CInt(vectors.count)) == size else { break }
            unsafe complete(heads, vectors, size, &server, &state)
            count += 1
        }
        announce(.receive, &server, &state)
        return count == 256
    }

    @unsafe
    private func complete(
        _ heads: [UInt16],
        _ vectors: [iovec],
        _ size: Int,
        _ server: inout SplitRingServer,
        _ state: inout State
    ) {
        var buffers = UInt16(heads.count)
        let lie = source.behaviour.withLock { $0.lies[.receive] }
        if case .buffers(let number) = lie {
            buffers = number
            _ = source.takeLie(.receive)
        }
        unsafe vectors[0].iov_base.storeBytes(of: buffers.littleEndian, toByteOffset: 10, as: UInt16.self)
        var rest = size
        for (index, head) in heads.enumerated() {
            let bytes = unsafe min(rest, vectors[index].iov_len)
            rest -= bytes
            put(.receive, UInt32(head), UInt32(bytes), &server, &state)
        }
    }

    private func put(
        _ ring: VhostRing,
        _ head: UInt32,
        _ byteCount: UInt32,
        _ server: inout SplitRingServer,
        _ state: inout State
    ) {
        switch source.behaviour.withLock({ $0.lies[ring] }) {
        case .id(let id):
            _ = source.takeLie(ring)
            server.put(head: id, byteCount: byteCount)
        case .length(let length):
            _ = source.takeLie(ring)
            server.put(head: head, byteCount: length)
        case .jump, .buffers, nil: server.put(head: head, byteCount: byteCount)
        }
        state[ring].pending += 1
        if state[ring].pending > source.behaviour.withLock({ $0.batch }) { announce(ring, &server, &state) }
    }

    private func announce(_ ring: VhostRing, _ server: inout SplitRingServer, _ state: inout State) {
        guard state[ring].pending > 0 else { return }
        state[ring].pending = 0
        var extra: UInt16 = 0
        if case .jump(let by) = source.behaviour.withLock({ $0.lies[ring] }) {
            _ = source.takeLie(ring)
            extra = by
        }
        if server.announce(lie: extra), let call = state[ring].events[.call] { _ = eventfd_write(call.descriptor, 1) }
    }

    private func fail(_ ring: VhostRing, _ state: inout State) {
        if let error = state[ring].events[.error] { _ = eventfd_write(error.descriptor, 1) }
    }

    /// The owner's memory that descriptors name; nil if they name something else.
    @unsafe
    private func vectors(_ pieces: [SplitRingServer.Piece], isWritable: Bool, _ regions: [VhostRegion]) -> [iovec]? {
        var vectors: [iovec] = unsafe []
        for piece in pieces {
            guard piece.isWritable == isWritable,
                let region = regions.first(where: { piece.address >= $0.name && piece.address < $0.name + $0.byteCount }
                ),
                UInt64(piece.byteCount) <= region.name + region.byteCount - piece.address
            else { return nil }
            let address = region.address + (piece.address - region.name)
            unsafe vectors.append(
                iovec(iov_base: UnsafeMutableRawPointer(bitPattern: UInt(address)), iov_len: piece.byteCount)
            )
        }
        return unsafe vectors
    }
}
