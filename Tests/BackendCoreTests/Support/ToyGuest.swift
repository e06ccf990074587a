// A simulated host with one toy device, and the guest's driver for it.

internal import BackendCore
internal import Hypervisor
internal import Logging
internal import SharedRing
internal import SimulatedHypervisor
internal import Synchronization
internal import TestSupport
internal import XenWire

/// Keeps log lines.
final class LogLines: Sendable {
    private let lines = Mutex<[String]>([])
    var all: [String] { lines.withLock { $0 } }

    var logger: Logger { Logger(label: "test") { _ in Recorder(lines: self) } }

    private struct Recorder: LogHandler {
        let lines: LogLines
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.debug
        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }
        func log(event: LogEvent) { lines.lines.withLock { $0.append("\(event.level): \(event.message)") } }
    }
}

/// Made for one test; one request at a time.
final class ToyScene {
    static let domain = guestDomain
    static let path = DevicePath(kind: .vbd3, domain: domain, index: 51712)

    let machine: SimulatedMachine
    let host: SimulatedHypervisor
    let guest: SimulatedHypervisor
    let logs = LogLines()
    let workers: Workers
    private(set) var backend: ToyBackend
    private var life: Task<Void, Never>

    let ring: SharedGrant
    let data: SharedGrant
    let events: any EventChannels
    let port: EventChannelPort
    private var front: FrontRing
    private var nextID: UInt32 = 1

    init() async throws {
        machine = try SimulatedMachine()
        try machine.createDomain(ToyScene.domain)
        host = try machine.hypervisor(for: .initial)
        guest = try machine.hypervisor(for: ToyScene.domain)
        workers = try Workers(host, of: ToyScene.domain, logger: logs.logger)
        ring = try guest.sharing.share(pageCount: 1, with: .initial, access: .readWrite)
        data = try guest.sharing.share(pageCount: 1, with: .initial, access: .readWrite)
        events = try guest.openEventChannels()
        port = try events.allocate(for: .initial)
        front = FrontRing(pages: ring.pages, stride: ToyWire.format.stride)
        let path = ToyScene.path
        try await host.store.transaction { (store) throws(HypervisorFailure) in
            for directory in [path.relative, path.frontend] {
                try store.write(directory, "")
                let permissions = [XenStorePermission(path.domain, .none), XenStorePermission(.initial, .read)]
                try store.setPermissions(directory, permissions)
                try store.write("\(directory)/state", "1")
            }
            try store.write(path.key("online"), "1")
        }
        (backend, life) = ToyScene.start(workers)
    }

    private static func start(_ workers: Workers) -> (ToyBackend, Task<Void, Never>) {
        let backend = Mutex<ToyBackend?>(nil)
        let (_, life) = workers.start(path) { environment in
            let made = ToyBackend(path, environment)
            backend.withLock { $0 = made }
            return made
        }
        return (backend.withLock { $0! }, life)
    }

    var keys: [String: String] { ["ring-ref": "\(ring.references[0].rawValue)", "event-channel": "\(port.rawValue)"] }

    func set(_ values: [String: String]) async throws {
        try await guest.store.transaction { (store) throws(HypervisorFailure) in
            for (name, value) in values { try store.write("\(ToyScene.path.frontend)/\(name)", value) }
        }
    }

    func backendReaches(_ state: XenbusState) async throws -> Bool {
        try await eventually { try await self.host.store.read(ToyScene.path.key("state")) == state.text }
    }

    func connect() async throws -> Bool {
        guard try await backendReaches(.initWait) else { return false }
        try await set(keys)
        try await set(["state": "3"])
        guard try await backendReaches(.connected) else { return false }
        try await set(["state": "4"])
        return true
    }

    /// The worker dies.
    func die() async {
        await backend.abandon()
        await life.value
    }

    func succeed() throws {
        try workers.renew()
        (backend, life) = ToyScene.start(workers)
    }

    func phase(_ text: String) async -> Bool { await eventually { await backend.report().phase == text } }

    func end() async {
        await backend.drain()
        await life.value
    }

    /// Puts a request; it is answered whenever a backend serves.
    func ask(count: UInt32, reference: GrantReference? = nil) -> UInt32 {
        defer { nextID += 1 }
        let reference = reference ?? data.references[0]
        let low = UInt64(nextID) | UInt64(reference.rawValue) << 32
        front.put(WireWords(low: low, high: UInt64(count)), count: 16)
        _ = front.push()
        events.notify(port)
        return nextID
    }

    /// The sum that answers request `id`, the next to be answered.
    func answer(to id: UInt32) async throws -> UInt32? {
        guard try await eventually({ try front.poll() > 0 }) else { return nil }
        let memory = try PrivatePages(byteCount: 4096)
        let slot = memory.slot(at: 0, byteCount: 8)
        front.takeNext(into: slot, count: 8)
        return slot.u32(0) == id ? slot.u32(4) : nil
    }
}
