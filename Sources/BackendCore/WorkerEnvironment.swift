// What a worker provides to its devices: hypervisor, loops, run directory, logger.

public import HostIO
public import Hypervisor
public import Logging
internal import Synchronization
public import SystemPackage
public import XenWire

/// The surroundings of all devices of one worker. Lives as long as the worker.
public final class WorkerEnvironment: Sendable {
    public let hypervisor: any Hypervisor
    /// For mappings of data, which a budget may refuse (`BudgetedHypervisor`) and which are copied then.
    public let dataGrants: any GrantTable
    /// The domain whose devices are served.
    public let domain: DomainID
    /// Its identity; nil where that is not checked. The number may be reused while this worker is still ending.
    public let identity: DomainIdentity?
    /// Raised when the number has become another domain's: this worker must not touch anything of that.
    public let isReplaced = WatchSignal()
    /// Device actors and handshakes run here.
    public let controlLoop: EventLoop
    /// `/run/xenbackd`: journals live in its folder `journal`.
    public let runDirectory: FilePath
    /// Carries the domain already; devices add themselves.
    public let logger: Logger
    /// How many data loops there may be, at least 1.
    public let dataLoopLimit: Int
    /// Where devices mark that their code runs; nil where nobody looks.
    public let marks: CrashMarks?
    private let loops: Mutex<[Int: DataLoop]>
    /// By name, those that one device has for itself.
    private let ownLoops = Mutex<[String: DataLoop]>([:])

    /// - Parameter dataLoopLimit: usually `min(processors, 4)`.
    public init(
        hypervisor: any Hypervisor,
        domain: DomainID,
        identity: DomainIdentity? = nil,
        controlLoop: EventLoop,
        runDirectory: FilePath,
        logger: Logger,
        dataLoopLimit: Int,
        marks: CrashMarks? = nil
    ) {
        self.hypervisor = hypervisor
        dataGrants = (hypervisor as? BudgetedHypervisor)?.dataGrants ?? hypervisor.grants
        self.domain = domain
        self.identity = identity
        self.controlLoop = controlLoop
        self.runDirectory = runDirectory
        self.logger = logger
        self.dataLoopLimit = max(1, dataLoopLimit)
        self.marks = marks
        loops = Mutex([:])
    }

    /// The data loop for queue `queue` of device number `device`, started at its first use. Neighbours get different
    /// ones, also among disks, whose numbers are 16 apart (xvda 51712, xvdb 51728).
    public func dataLoop(device: UInt32, queue: Int) throws(BackendFailure) -> DataLoop {
        let place = UInt64(device) &+ UInt64(device >> 4) &+ UInt64(truncatingIfNeeded: queue)
        let index = Int(place % UInt64(dataLoopLimit))
        let result = loops.withLock { (loops: inout [Int: DataLoop]) -> Result<DataLoop, BackendFailure> in
            if let loop = loops[index] { return .success(loop) }
            do throws(BackendFailure) {
                let loop = try DataLoop(name: "data-\(index)", hypervisor: hypervisor)
                loops[index] = loop
                return .success(loop)
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    /// A loop that a device has for itself, started at the first use: for queues whose turns wait for the host, which no
    /// other device must do with them.
    public func ownLoop(_ name: String) throws(BackendFailure) -> DataLoop {
        let result = ownLoops.withLock { (loops: inout [String: DataLoop]) -> Result<DataLoop, BackendFailure> in
            if let loop = loops[name] { return .success(loop) }
            do throws(BackendFailure) {
                let loop = try DataLoop(name: name, hypervisor: hypervisor)
                loops[name] = loop
                return .success(loop)
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    /// Stops the data loops; every device must have left them. The control loop is its owner's to stop.
    public func shutDown() {
        let all = loops.withLock { (loops: inout [Int: DataLoop]) -> [DataLoop] in
            defer { loops = [:] }
            return Array(loops.values)
        }
        let own = ownLoops.withLock { (loops: inout [String: DataLoop]) -> [DataLoop] in
            defer { loops = [:] }
            return Array(loops.values)
        }
        for loop in all + own { loop.shutDown() }
    }
}
