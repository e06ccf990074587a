// What people and scripts ask of a live disk, and what it tells about itself.

internal import BackendCore
internal import DiskImages
internal import HostIO
internal import Hypervisor
internal import Logging
internal import XenWire

extension BlockBackend {
    // MARK: commands

    /// How long a command waits for a device that a new worker is taking over.
    private static let settlingTime = Duration.seconds(5)

    func command(_ command: DeviceCommand) async throws(BackendFailure) {
        let deadline = ContinuousClock.now + BlockBackend.settlingTime
        while life.isSettling, ContinuousClock.now < deadline {
            await environment.controlLoop.sleep(for: .milliseconds(5))
        }
        switch command {
        case .resize: try await resize()
        case .insertMedia(let target): try await insert(target)
        case .ejectMedia: try await eject()
        }
    }

    private func resize() async throws(BackendFailure) {
        guard let medium else { throw BackendFailure(.unsupported, "\(path) has no image") }
        try await replace(try await medium.measuredAgain(on: environment.controlLoop))
    }

    private func insert(_ target: String) async throws(BackendFailure) {
        guard keys?.isCDROM ?? false else { throw BackendFailure(.unsupported, "\(path) is not a CD-ROM drive") }
        guard let file = BlockDeviceKeys.target(target) else { throw BackendFailure(.invalid, "no image named") }
        let new = try await open(file, patience: .zero)
        keys?.target = file
        try await replace(new)
    }

    private func eject() async throws(BackendFailure) {
        guard keys?.isCDROM ?? false else { throw BackendFailure(.unsupported, "\(path) is not a CD-ROM drive") }
        keys?.target = nil
        try await replace(nil)
    }

    /// Puts a medium in and tells the frontend: properties and `state` again, in one transaction (xen-blkfront.c,
    /// `blkback_changed`: it looks at `sectors` when it sees 4 once more).
    private func replace(_ new: BlockMedium?) async throws(BackendFailure) {
        medium = new
        let limits = currentLimits
        for queue in queues { await queue.replaceMedium(new, limits) }
        guard life.handshake?.published == .connected else { return }
        var values = properties
        if keys?.isCDROM ?? false { values.append((BlockKeys.params, keys?.target.map { "aio:\($0)" } ?? "")) }
        values.append((BusKeys.state, XenbusState.connected.text))
        await write(values, "publish the new medium")
        life.logger.info("\(limits.capacity) sectors now")
    }

    func release() async {
        for queue in queues { await queue.abandon() }
        queues = []
        medium = nil
    }

    // MARK: reports

    func report() async -> DeviceReport {
        var report = DeviceReport(path: path, phase: life.phase)
        report.backendState = life.snapshot?.backend
        report.frontendState = life.snapshot?.frontend
        var metrics = pastMetrics
        var inFlight = 0
        var mapped = 0
        report.lastFault = life.log.lastFault
        report.lastFailure = life.log.lastFailure
        for queue in queues {
            let account = await queue.account()
            metrics.merge(account.metrics)
            inFlight += account.inFlight
            mapped += account.mappedGrants
            report.lastFault = account.lastFault ?? report.lastFault
            report.lastFailure = account.lastFailure ?? report.lastFailure
        }
        report.latency = metrics.latency
        report.counters = metrics.counters
        report.counters.append(.init("in-flight", UInt64(inFlight)))
        report.counters.append(.init("mapped-grants", UInt64(mapped)))
        report.details = details
        return report
    }

    private var details: [DeviceReport.Detail] {
        var details: [DeviceReport.Detail] = []
        details.append(.init("image", keys?.target ?? "(empty drive)"))
        details.append(.init("mode", isReadOnly ? "read-only" : "read-write"))
        if let facts = medium?.image.facts {
            details.append(.init("size", "\(facts.byteCount) bytes"))
            details.append(.init("sector-size", "\(facts.logicalBlockSize)"))
        }
        if let connection {
            details.append(.init("connection", connection.summary))
        }
        return details
    }
}
