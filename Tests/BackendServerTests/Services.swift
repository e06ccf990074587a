// Broker and workers as real processes (`xenback demo-broker`) on a simulated host, and a guest that works on a disk.

import ControlProtocol
import FrontendDrivers
import HostIO
import Hypervisor
import SharedRing
import SimulatedHypervisor
import Synchronization
import SystemPackage
import TestSupport
import Testing
import XenWire

@testable import BackendServer

#if canImport(Glibc)
    import Glibc
#endif

/// The services of one simulated host.
final class Services: @unchecked Sendable {
    // Only the test that made it changes it.
    let host: SimulatedHost
    private(set) var broker: ChildProcess?
    private let poison: String?
    private let hasSettings: Bool
    private let program: String
    private let own: DomainID
    private let hasNetwork: Bool

    /// - Parameters:
    ///   - settings: the text of a settings file.
    ///   - own: the domain that they run in; made here when it is not 0.
    ///   - hasNetwork: cards are sockets in `network`.
    init(
        poison: String? = nil,
        settings: String? = nil,
        own: DomainID = .initial,
        hasNetwork: Bool = false
    ) throws {
        host = try SimulatedHost()
        self.poison = poison
        self.own = own
        self.hasNetwork = hasNetwork
        if own != .initial { try host.machine.createDomain(own) }
        hasSettings = settings != nil
        program = Services.xenback
        try host.machine.listen(at: machine)
        if let settings { try write(settings: settings) }
        try startBroker()
    }

    private var settingsFile: FilePath { host.directory.appending("xenbackd.toml") }

    func write(settings: String) throws {
        let file = try FileDescriptor.open(
            settingsFile,
            .writeOnly,
            options: [.create, .truncate],
            permissions: .ownerReadWrite
        )
        try file.closeAfter { _ = try file.writeAll(settings.utf8) }
    }

    func removeSettings() throws { try Files.remove(settingsFile) }

    /// Beside the test bundle.
    static var xenback: String {
        FilePath(ownProgram()).removingLastComponent().appending("xenback").string
    }

    /// The simulated bus: a file for each device (xenback/DemoBus).
    var bus: FilePath { host.directory.appending("usb") }

    /// Where a `PacketExchange` is to listen.
    var network: FilePath { host.directory }

    private var machine: String { host.directory.appending("machine").string }

    func startBroker(program: String? = nil) throws {
        var words = [program ?? self.program, "demo-broker", "--machine", machine]
        words += ["--run-directory", host.run.path.string, "--usb", bus.string]
        words += ["--log-level", unsafe getenv("TEST_LOG") == nil ? "critical" : "debug"]
        if own != .initial { words += ["--own-domain", "\(own)"] }
        if hasNetwork { words += ["--network", network.string] }
        if let poison { words += ["--poison", poison] }
        if hasSettings { words += ["--settings", settingsFile.string] }
        broker = try ChildProcess(spawning: words)
    }

    /// Ends the broker with a signal and waits for its end.
    func endBroker(_ signal: CInt) async throws -> ProcessEnd {
        let process = try #require(broker)
        process.signal(signal)
        var end: ProcessEnd?
        try await eventually("the broker ends", within: .seconds(40)) {
            end = process.takeEnd()
            return end != nil
        }
        broker = nil
        return try #require(end)
    }

    /// Everything ends as it should.
    func end() async {
        if broker != nil { _ = try? await endBroker(SIGTERM) }
    }

    /// Everything ends, also where a test failed half way.
    deinit {
        broker?.signal(SIGKILL)
        for domain in (try? host.run.domains()) ?? [] {
            if let worker = worker(of: domain) { kill(worker, SIGKILL) }
        }
    }

    func call<Verb: ControlVerb>(_ verb: Verb) async throws -> Verb.Reply {
        let deadline = ContinuousClock.now + .seconds(10)
        // The broker needs a moment to listen.
        while (try? await callOnce(Ping())) == nil, ContinuousClock.now < deadline {
            await host.loop.sleep(for: .milliseconds(20))
        }
        return try await callOnce(verb)
    }

    private func callOnce<Verb: ControlVerb>(_ verb: Verb) async throws -> Verb.Reply {
        let (socket, loop) = (host.run.controlSocket, host.loop)
        return try await Task(executorPreference: loop) {
            try await WorkerCall.perform(verb, at: socket, on: loop)
        }.value
    }

    /// Processes that wait to be told whom they serve.
    var spares: [CInt] {
        let processes = (try? Files.names(in: "/proc"))?.compactMap { CInt($0) } ?? []
        return processes.filter { process in
            let line = (try? Files.contents(of: FilePath("/proc/\(process)/cmdline"), limit: 1 << 16)) ?? []
            let words = line.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
            return words.contains(machine) && words.suffix(2) == ["--domain", WorkerLine.spare]
        }
    }

    /// The spare worker, as soon as there is one.
    func spare() async throws -> CInt {
        var spare: CInt?
        try await eventually("a spare worker", within: .seconds(20)) {
            spare = spares.first
            return spare != nil
        }
        return try #require(spare)
    }

    /// The process that holds the domain's worker lock.
    func worker(of domain: DomainID) -> CInt? {
        guard let found = try? LockFile.look(at: host.run.lock(of: domain)), found.isHeld else { return nil }
        return WorkerLabel(text: found.text)?.process
    }

    /// A domain with a disk on an image of its own, attached through the control socket and connected.
    func guest(_ number: UInt16, megabytes: Int = 16) async throws -> Guest {
        let domain = try #require(DomainID(number))
        try host.machine.createDomain(domain)
        let image = try makeImage("disk-\(number).img", megabytes: megabytes)
        let frontend = try await attach(domain, 51712, "vdev=xvda,format=raw,target=\(image)")
        return Guest(domain: domain, frontend: frontend, path: DevicePath(kind: .vbd, domain: domain, index: 51712))
    }

    func makeImage(_ name: String, megabytes: Int) throws -> FilePath {
        let image = host.directory.appending(name)
        let file = try FileDescriptor.open(image, .readWrite, options: .create, permissions: .ownerReadWrite)
        try file.closeAfter { try file.resize(to: Int64(megabytes) << 20) }
        return image
    }

    /// Attaches a disk through the control socket; the guest's driver connects.
    func attach(_ domain: DomainID, _ index: UInt32, _ line: String) async throws -> BlockFrontend {
        let frontend = BlockFrontend(try host.machine.hypervisor(for: domain), loop: host.loop, index: index)
        async let attached = call(BlockAttach(domain: "\(domain)", disk: line))
        try await eventually("the guest's nodes") {
            try await self.host.dom0.store.read("/local/domain/\(domain)/device/vbd/\(index)/backend") != nil
        }
        try await frontend.connect()
        let reply = try await attached
        #expect(reply.device.path == "backend/vbd/\(domain)/\(index)")
        return frontend
    }
}

/// A guest's disk and its one program: write, read back, compare.
final class Guest: Sendable {
    let domain: DomainID
    let frontend: BlockFrontend
    let path: DevicePath
    private let rounds = Mutex(0)
    private let isOver = Mutex(false)

    init(domain: DomainID, frontend: BlockFrontend, path: DevicePath) {
        self.domain = domain
        self.frontend = frontend
        self.path = path
    }

    /// What a verifying load did until it was told to stop.
    struct Work: Sendable {
        var rounds = 0
        /// The longest time from one answer to the next.
        var longestPause: Duration = .zero
    }

    /// Writes and reads 4 KiB blocks, each round other bytes, and compares. Throws on the first error or wrong byte.
    /// Goes on until the deadline *and* this many rounds, however slow the machine is.
    func work(until deadline: ContinuousClock.Instant, atLeast rounds: Int = 50) async throws -> Work {
        try await work { ContinuousClock.now < deadline || $0 < rounds }
    }

    /// Works while `body` runs, and until it has been served once more.
    func working(_ body: () async throws -> Void) async throws -> Work {
        isOver.withLock { $0 = false }
        async let work = work { _ in !isOver.withLock { $0 } }
        do {
            try await body()
            try await hasWorked()
        } catch {
            isOver.withLock { $0 = true }
            throw error
        }
        isOver.withLock { $0 = true }
        return try await work
    }

    /// Waits until as many rounds more have been verified.
    func hasWorked(rounds more: Int = 20) async throws {
        let wanted = rounds.withLock { $0 } + more
        try await until(within: .seconds(60)) { rounds.withLock { $0 } >= wanted }
    }

    private func work(while goesOn: @Sendable (_ rounds: Int) -> Bool) async throws -> Work {
        let pages = try PrivatePages(byteCount: 8192)
        var work = Work()
        var last = ContinuousClock.now
        while goesOn(work.rounds) {
            let sector = UInt64(work.rounds % 256) * 8
            pages.write([UInt8](repeating: UInt8(truncatingIfNeeded: work.rounds), count: 4096), at: 0)
            try await frontend.write(sector: sector, count: 8, from: pages)
            try await frontend.read(sector: sector, count: 8, into: pages, at: 4096)
            let same = pages.withBytes(at: 0, count: 8192) { bytes in
                (0..<4096).allSatisfy {
                    unsafe bytes.unsafeLoad(fromByteOffset: $0, as: UInt8.self)
                        == bytes.unsafeLoad(fromByteOffset: $0 + 4096, as: UInt8.self)
                }
            }
            try #require(same, "round \(work.rounds) read other bytes than it wrote")
            work.rounds += 1
            rounds.withLock { $0 += 1 }
            work.longestPause = max(work.longestPause, ContinuousClock.now - last)
            last = .now
        }
        return work
    }
}
