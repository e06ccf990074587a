// The broker's processes: started, adopted, watched through their pidfds, their deaths attributed.

internal import BackendCore
internal import HostIO
internal import Hypervisor
internal import Logging
internal import SystemPackage
internal import XenWire

#if canImport(Glibc)
    internal import Glibc
#endif

let stopSignal = SIGTERM
let killSignal = SIGKILL

extension Broker {
    func start(_ worker: SupervisedWorker) {
        let log = log(of: worker.domain)
        let running = workers.values.count { $0.process != nil }
        guard running < setting.workerLimit else {
            if refused.insert(worker.domain).inserted {
                log.error("no worker: \(running) run already, the limit is \(setting.workerLimit)")
            }
            return supervise(worker.domain, .startFailed)
        }
        refused.remove(worker.domain)
        if let process = takeSpare(for: worker.domain) {
            log.info("worker \(process.identifier) started (it was ready)")
            return hold(process, worker)
        }
        let command = setting.workerCommand(worker.domain)
        do throws(Errno) {
            let process = try ChildProcess(spawning: command)
            log.info("worker \(process.identifier) started")
            hold(process, worker)
        } catch {
            log.error("cannot start a worker with \(command.first ?? "?"): \(error)")
            supervise(worker.domain, .startFailed)
        }
    }

    /// Watches a process from now on.
    private func hold(_ process: ChildProcess, _ worker: SupervisedWorker) {
        worker.process = process
        worker.started = .now
        let domain = worker.domain
        let watch = DescriptorWatch(process.descriptor, on: loop) { [weak self] in
            self?.assumeIsolated { $0.look(at: domain) }
        }
        worker.watch = watch
        watch.begin()
        prepareSpare()
    }

    private func look(at domain: DomainID) {
        guard let worker = workers[domain], let process = worker.process, let end = process.takeEnd() else { return }
        worker.watch?.cancel()
        worker.watch = nil
        worker.process = nil
        ended(worker, process, end)
    }

    private func ended(_ worker: SupervisedWorker, _ process: ChildProcess, _ end: ProcessEnd) {
        let log = log(of: worker.domain)
        var life = WorkerLife(duration: .now - worker.started, progressed: false)
        let died = end != .exited(0) && !worker.machine.isDraining
        log.log(level: died ? .error : .info, "worker \(process.identifier) \(end)")
        if died { life.progressed = judge(worker.domain, life) }
        // An exclusion may leave no device to start a worker for.
        let (demand, identity) = (demand(of: worker.domain), worker.machine.present)
        if worker.machine.demand != nil, demand != worker.machine.demand {
            supervise(worker.domain, .seen(demand, identity: identity))
        }
        supervise(worker.domain, .ended(life))
        workerEnded()
    }

    // MARK: crash attribution

    /// Attributes a death to devices, and closes those that it has been attributed to too often.
    /// - Returns: whether any device had got something done.
    private func judge(_ domain: DomainID, _ life: WorkerLife) -> Bool {
        guard let marks = try? CrashMarks(setting.run.marks(of: domain)).inUse else { return false }
        let devices = marks.map {
            CrashSuspect(name: $0.name, busy: $0.isBusy, progressed: $0.hasProgressed, crashes: $0.crashes)
        }
        var life = life
        life.progressed = devices.contains(where: \.progressed)
        for (mark, crashes) in zip(marks, CrashAttribution.crashes(of: devices, life: life)) {
            mark.crashes = crashes
            guard crashes >= CrashAttribution.limit, !mark.isExcluded else { continue }
            guard let path = listing.devices(of: domain).first(where: { $0.name == mark.name })?.path else { continue }
            mark.isExcluded = true
            exclude(path)
        }
        return life.progressed
    }

    func exclude(_ path: DevicePath) {
        excluded.insert(path)
        let text = "closed: its backend died \(CrashAttribution.limit) times in a row while serving it"
        log(of: path).error("\(text); attach it anew to try again")
        Task(executorPreference: loop) {
            await self.close(path, because: text)
        }
    }

    // MARK: adoption

    /// Takes over the workers, and the remains of workers, of a broker that is gone.
    func adoptWorkers() {
        do throws(Errno) {
            for domain in try setting.run.domains().sorted() {
                do throws(Errno) {
                    try adopt(domain)
                } catch {
                    log(of: domain).error("cannot adopt its worker: \(error)")
                }
            }
        } catch {
            log.error("cannot read \(setting.run.path): \(error)")
        }
    }

    /// Adopting a worker without its marks is better than not adopting it.
    private func marks(of domain: DomainID) -> [DeviceCrashMark] {
        do throws(Errno) {
            return try CrashMarks(setting.run.marks(of: domain)).inUse
        } catch {
            log(of: domain).error("cannot read \(setting.run.marks(of: domain)): \(error)")
            return []
        }
    }

    private func adopt(_ domain: DomainID) throws(Errno) {
        let lock = setting.run.lock(of: domain)
        guard let found = try LockFile.look(at: lock), let label = WorkerLabel(text: found.text) else { return }
        for mark in marks(of: domain) where mark.isExcluded {
            if let path = DevicePath(text: "backend/\(mark.name.replacing("/", with: "/\(domain)/"))") {
                excluded.insert(path)
            }
        }
        let identity = DomainIdentity(label.identity)
        guard found.isHeld else { return supervise(domain, .remains(of: identity)) }
        let process = try ChildProcess(adopting: label.process)
        // The number was the lock holder's both before and after the pidfd was opened, so the pidfd is the holder's.
        guard let again = try LockFile.look(at: lock), again.isHeld, again.text == found.text else {
            return supervise(domain, .remains(of: identity))
        }
        log(of: domain).notice("adopted worker \(process.identifier)")
        let worker = SupervisedWorker(domain)
        workers[domain] = worker
        hold(process, worker)
        supervise(domain, .adopted(serving: identity, foreign: label.build != setting.build))
    }
}
