// What people and scripts ask of a live disk. A command waits for its turn in the device's life.

internal import BackendCore
internal import DiskImages
internal import HostIO
internal import Hypervisor
internal import Logging
internal import XenWire

/// A command that waits for its turn.
struct BlockCommand {
    let number: UInt64
    let work: @Sendable (isolated BlockBackend) async -> Void
    let answer: CheckedContinuation<BackendFailure?, Never>
}

extension BlockBackend: LiveDisk {
    /// How long a command waits for a device that is connecting, or whose image is being opened.
    private static let startingTime = Duration.seconds(5)

    func resize() async throws(BackendFailure) {
        try await ready()
        guard let medium else { throw BackendFailure(.unsupported, "\(path) has no image") }
        let measured = try await medium.measuredAgain(on: environment.controlLoop)
        try await inTurn { disk in
            // The disc may have been changed meanwhile.
            if disk.medium?.file === measured.file { await disk.replace(measured) }
        }
    }

    func insertMedium(_ target: String) async throws(BackendFailure) {
        try await ready()
        guard keys?.isCDROM ?? false else { throw BackendFailure(.unsupported, "\(path) is not a CD-ROM drive") }
        let wanted: DiskTarget?
        do throws(DiskTargetFault) { wanted = try DiskTarget(parsing: target) } catch {
            throw BackendFailure(.invalid, "\(error)")
        }
        guard let wanted else { throw BackendFailure(.invalid, "no image named") }
        let new = try await open(wanted, isTakeover: false)
        try await inTurn { disk in
            disk.keys?.target = wanted
            await disk.replace(new)
        }
    }

    func ejectMedium() async throws(BackendFailure) {
        try await ready()
        guard keys?.isCDROM ?? false else { throw BackendFailure(.unsupported, "\(path) is not a CD-ROM drive") }
        try await inTurn { disk in
            disk.keys?.target = nil
            await disk.claim(nil)
            await disk.replace(nil)
        }
    }

    /// Puts a medium in and tells the frontend: properties and `state` again, in one transaction (xen-blkfront.c,
    /// `blkback_changed`: it looks at `sectors` when it sees 4 once more).
    private func replace(_ new: BlockMedium?) async {
        medium = new
        let limits = currentLimits
        for queue in queues { await queue.replaceMedium(new, limits) }
        guard life.handshake?.published == .connected else { return }
        var values = properties
        if keys?.isCDROM ?? false { values.append((BlockKeys.params, params)) }
        values.append((BusKeys.state, XenbusState.connected.text))
        await write(values, "publish the new medium")
        life.logger.info("\(limits.capacity) sectors now")
    }

    /// As libxl would have written it (libxl_disk.c, `device_disk_add`).
    private var params: String {
        guard let target = keys?.target else { return "" }
        return path.kind == .vbd || target.format != .raw ? target.text : "aio:\(target.text)"
    }

    // MARK: turns

    /// Waits until the device is known: a successor that has just started has read neither its keys nor its image.
    private func ready() async throws(BackendFailure) { try await inTurn { _ in } }

    /// Does `work` while nothing else changes the device: between two handshake events, and not while its image is
    /// being opened. A command during a connect would miss queues that are still to be opened, and its properties could
    /// be overwritten with older ones.
    private func inTurn(
        _ work: @escaping @Sendable (isolated BlockBackend) async -> Void
    ) async throws(BackendFailure) {
        commandCount += 1
        let number = commandCount
        let failure = await withCheckedContinuation { continuation in
            commands.append(BlockCommand(number: number, work: work, answer: continuation))
            signal.raise()
            Task(executorPreference: environment.controlLoop) {
                await self.environment.controlLoop.sleep(for: Self.startingTime)
                await self.refuseCommand(number)
            }
        }
        if let failure { throw failure }
    }

    /// A command whose turn did not come.
    private func refuseCommand(_ number: UInt64) {
        guard let index = commands.firstIndex(where: { $0.number == number }) else { return }
        let command = commands.remove(at: index)
        command.answer.resume(returning: BackendFailure(.busy, "\(path) is not ready: \(life.phase); try again"))
    }

    /// Called between two events.
    func keysChanged() async {
        while !commands.isEmpty, !isOpening, !life.isStartingUp {
            let command = commands.removeFirst()
            await command.work(self)
            command.answer.resume(returning: nil)
        }
    }
}
