// The worker in reserve: started while nobody waits, handed to the next domain that needs one.

internal import HostIO
internal import Logging
internal import SystemPackage
internal import XenWire

extension Broker {
    /// After a worker was started its guest has the processors first.
    private static let spareDelay: Duration = .seconds(1)

    /// Sees to it that soon there is a spare worker, as long as there are workers at all.
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
            // Workers are then started when they are needed, which takes a guest a moment longer.
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

    /// It ended by itself: the next start is an ordinary one, so that one that always ends is not started for ever.
    private func spareEnded() {
        guard let end = spare?.process.takeEnd() else { return }
        log.warning("the spare worker \(end)")
        dismissSpare()
    }

    /// Lets go of it; one that was not told whom to serve ends.
    func dismissSpare() {
        spareWatch?.cancel()
        spareWatch = nil
        spare = nil
    }
}
