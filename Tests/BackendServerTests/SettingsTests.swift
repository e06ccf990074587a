// SIGHUP: the settings file is read again, for devices that come afterwards.

import BackendCore
import ControlProtocol
import HostIO
import Hypervisor
import SimulatedHypervisor
import SystemPackage
import Testing
import XenWire

@testable import BackendServer

#if canImport(Glibc)
    import Glibc
#endif

extension ServiceTests {
    /// What a new domain's disk is offered.
    private func ringPageOrder(_ services: Services, _ number: UInt16) async throws -> String? {
        try services.host.machine.createDomain(DomainID(number)!)
        let path = try await services.host.attach(
            number,
            target: "\(services.makeImage("\(number).img", megabytes: 1))"
        )
        try await eventually("its backend") { try await services.host.state(path) == .initWait }
        return try await services.host.dom0.store.read(path.key("max-ring-page-order"))
    }

    @Test func settingsAreReadAgainForNewDevices() async throws {
        let services = try Services(settings: "[block]\nring-page-order = 3\n")
        let guest = try await services.guest(1)
        let worker = try #require(services.worker(of: guest.domain))
        #expect(try await services.host.dom0.store.read(guest.path.key("max-ring-page-order")) == "3")
        // A kind that is nobody's so far.
        let foreign = "backend/qdisk/1/51744"
        for (key, value) in [("frontend", "/local/domain/1/device/vbd/51744"), ("state", "1"), ("online", "1")] {
            try await services.host.dom0.store.write("\(foreign)/\(key)", value)
        }
        try services.write(settings: "[block]\nring-page-order = 1\nqdisk = true\n")
        services.broker?.signal(SIGHUP)
        // The broker looks after the new kind from now on.
        try await eventually("the new kind is listed") {
            try await services.call(List()).devices.contains { $0.path == foreign }
        }
        #expect(try await ringPageOrder(services, 2) == "1")
        // Whom it served before, it serves as before.
        #expect(services.worker(of: guest.domain) == worker)
        _ = try await guest.work(until: .now, atLeast: 5)
        await services.end()
    }

    /// Sent and not yet taken: `ShdPnd` of /proc/PID/status (proc(5)).
    private func isPending(_ signal: CInt, of process: CInt) -> Bool {
        let text = (try? Files.contents(of: FilePath("/proc/\(process)/status"), limit: 65536)) ?? []
        let line = String(decoding: text, as: UTF8.self).split(separator: "\n").first { $0.hasPrefix("ShdPnd:") }
        let mask = line.flatMap { UInt64($0.dropFirst(7).drop(while: \.isWhitespace), radix: 16) } ?? 0
        return mask >> UInt64(signal - 1) & 1 != 0
    }

    @Test func wrongSettingsLeaveTheOldOnes() async throws {
        let services = try Services(settings: "[block]\nring-page-order = 2\n")
        let guest = try await services.guest(1)
        try services.write(settings: "[block]\nring-page-order = 9\n")
        let broker = try #require(services.broker)
        broker.signal(SIGHUP)
        try await eventually("the broker has taken the signal") { !isPending(SIGHUP, of: broker.identifier) }
        #expect(try await services.call(List()).devices.map(\.path) == ["\(guest.path)"])
        _ = try await guest.work(until: .now, atLeast: 5)
        // Nor do they keep a worker from starting: in place of a dead one, and for a new guest.
        kill(try #require(services.worker(of: guest.domain)), SIGKILL)
        _ = try await guest.work(until: .now, atLeast: 5)
        #expect(try await ringPageOrder(services, 2) == "2")
        // Not even where there is no file any more.
        try services.removeSettings()
        kill(try #require(services.worker(of: guest.domain)), SIGKILL)
        _ = try await guest.work(until: .now, atLeast: 5)
        #expect(try await ringPageOrder(services, 3) == "2")
        await services.end()
    }
}
