// The spare worker: started while nobody waits, given to the next domain that needs one.

internal import HostIO
internal import Logging
internal import SystemPackage
internal import XenWire

extension Broker {
    /// After a worker's start, leave the processors to its guest first.
    private static let spareDelay: Duration = .seconds(1)

    /// Makes sure that there is a spare worker soon, as long as there are any workers.
    func prepareSpare() {
        guard setting.keepsSpare, spare == nil else { return }
        Task(executorPreference: loop) {
            await self.loop.sleep(for: Broker.spareDelay)
            await self.startSpare()
        }
    }

    private func startSpare() {
        guard spare == nil, !isStopping, workers.values.contains(where: { $0.process != nil }) else { return }
        do throws(Errno) {
            let spare = try SpareWorker(setting.workerCommand(nil))
            log.debug("worker \(spare.process.identifier) is ready for whoever needs one")
            self.spare = spare
            let watch = DescriptorWatch(spare.process.descriptor, on: loop) { [weak self] in
                self?.assumeIsolated { $0.spareEnded() }
            }
            spareWatch = watch
            watch.begin()
        } catch {
            // Workers are then started on demand, which makes a guest wait a moment longer.
            log.warning("cannot start a spare worker: \(error)")
        }
    }

    /// Hands the spare worker over, if there is one.
    func takeSpare(for domain: DomainID) -> ChildProcess? {
        guard let spare else { return nil }
        guard (try? spare.serve(domain)) != nil else {
            spareEnded()
            return nil
        }
        dismissSpare()
        return spare.process
    }

    /// It ended by itself: the next worker is started on demand, so that a spare that always fails is not started for
    /// ever.
    private func spareEnded() {
        guard let end = spare?.process.takeEnd() else { return }
        log.warning("the spare worker \(end)")
        dismissSpare()
    }

    /// Releases it; a spare that was not told whom to serve ends.
    func dismissSpare() {
        spareWatch?.cancel()
        spareWatch = nil
        spare = nil
    }
}
