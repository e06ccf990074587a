// Interfaces of network cards: parked while a card is connected, swept when its device is gone.

import BackendCore
import ControlProtocol
import HostIO
import HostNetwork
import Hypervisor
import SimulatedHypervisor
import Synchronization
import Testing
import XenWire

@testable import BackendServer

#if canImport(Glibc)
    import Glibc
#endif

/// Says that every card is ours and makes none: the broker only asks.
private struct AnyCard: DeviceClass {
    var kinds: [DeviceKind] { [.vif] }
    func owns(_ keys: BackendNodes) -> Bool { true }
    func makeBackend(_ path: DevicePath, _ environment: WorkerEnvironment) -> any DeviceBackend {
        fatalError("the broker makes no backends")
    }
}

/// Interfaces that exist in this process only.
private final class FakeInterfaces: InterfaceKeeper {
    struct State {
        var owners: Set<String> = []
        var parked: Set<String> = []
        var asked: [String] = []
        var refuses = false
        var kept: [Set<String>] = []
    }
    let state = Mutex(State())

    private final class Parked: Sendable {
        let owner: String
        let interfaces: FakeInterfaces
        init(_ owner: String, _ interfaces: FakeInterfaces) {
            self.owner = owner
            self.interfaces = interfaces
        }
        deinit { _ = interfaces.state.withLock { $0.parked.remove(owner) } }
    }

    func park(_ owner: String) throws(HostFailure) -> any Sendable {
        let isThere = state.withLock { state in
            state.asked.append(owner)
            if !state.refuses { state.parked.insert(owner) }
            return !state.refuses
        }
        if !isThere { throw HostFailure(.notFound, "none") }
        return Parked(owner, self)
    }

    func forgetOthers(than owners: Set<String>) { state.withLock { $0.kept.append(owners) } }

    func owners() throws(HostFailure) -> [String] { state.withLock { Array($0.owners) } }

    func remove(_ owner: String) throws(HostFailure) { _ = state.withLock { $0.owners.remove(owner) } }

    var asked: [String] { state.withLock { $0.asked } }
    var owned: Set<String> { state.withLock { $0.owners } }
    var parked: Set<String> { state.withLock { $0.parked } }
}

@Suite(.serialized, .timeLimit(.minutes(2)))
struct InterfaceTests {
    private func broker(_ host: SimulatedHost, _ interfaces: FakeInterfaces) -> (Broker, Task<Void, Never>) {
        let setting = BrokerSetting(
            run: host.run,
            workerCommand: { ["/bin/sleep", "100\($0 ?? .initial)"] },
            build: "this build",
            interfaces: interfaces
        )
        let broker = Broker(
            loop: host.loop,
            hypervisor: host.dom0,
            setting: setting,
            classes: DeviceClasses(all: [AnyCard()]),
            log: host.log
        )
        return (
            broker,
            Task(executorPreference: host.loop) {
                await broker.run()
                await broker.stopped()
            }
        )
    }

    private func write(_ host: SimulatedHost, _ path: String, state: String) async throws {
        try await host.dom0.store.write("\(path)/state", state)
        try await host.dom0.store.write("\(path)/frontend", "/local/domain/1/device/vif/0")
    }

    @Test func aConnectedCardHasAParkedQueueUntilItIsNot() async throws {
        let host = try SimulatedHost()
        try host.machine.createDomain(DomainID(1)!)
        let interfaces = FakeInterfaces()
        let (broker, task) = broker(host, interfaces)
        try await write(host, "backend/vif/1/0", state: "2")
        try await write(host, "backend/vif/1/1", state: "4")
        try await eventually("one is parked") { interfaces.parked == ["xenback backend/vif/1/1"] }
        try await write(host, "backend/vif/1/0", state: "4")
        try await eventually("both are") { interfaces.parked.count == 2 }
        try await write(host, "backend/vif/1/1", state: "6")
        try await eventually("one again") { interfaces.parked == ["xenback backend/vif/1/0"] }
        // A death of the worker changes nothing here.
        let worker = try #require(await broker.process(of: DomainID(1)!))
        kill(worker, SIGKILL)
        try await eventually("a successor") {
            let now = await broker.process(of: DomainID(1)!)
            return now != nil && now != worker
        }
        #expect(interfaces.parked == ["xenback backend/vif/1/0"])
        #expect(interfaces.state.withLock { $0.asked.count } == 2)
        try await host.dom0.store.remove("backend/vif/1")
        try await eventually("none") { interfaces.parked.isEmpty }
        await broker.stop()
        await task.value
    }

    @Test func aRefusalIsAskedForOnceForEachConnection() async throws {
        let host = try SimulatedHost()
        try host.machine.createDomain(DomainID(1)!)
        let interfaces = FakeInterfaces()
        interfaces.state.withLock { $0.refuses = true }
        let (broker, task) = broker(host, interfaces)
        try await write(host, "backend/vif/1/0", state: "4")
        try await eventually("asked") { interfaces.state.withLock { $0.asked.count } == 1 }
        for index in 1..<10 {
            try await write(host, "backend/vif/1/0", state: "4")
            // The scan that finds this one looks at the first again.
            try await write(host, "backend/vif/1/\(index)", state: "4")
            try await eventually("another is asked for") { interfaces.asked.contains("xenback backend/vif/1/\(index)") }
        }
        #expect(interfaces.asked.count { $0 == "xenback backend/vif/1/0" } == 1)
        interfaces.state.withLock { $0.refuses = false }
        let path = try #require(DevicePath(text: "backend/vif/1/0"))
        try await write(host, "\(path)", state: "2")
        try await eventually("seen") { await broker.listing.devices[path]?.state == .initWait }
        try await write(host, "\(path)", state: "4")
        try await eventually("parked") { interfaces.parked == ["xenback \(path)"] }
        await broker.stop()
        await task.value
    }

    @Test func leftoversGoAtTheStartAndNobodyElses() async throws {
        let host = try SimulatedHost()
        try host.machine.createDomain(DomainID(1)!)
        let interfaces = FakeInterfaces()
        let stay: Set = [
            // Its device is there.
            "xenback backend/vif/1/0",
            // No device of a kind that this broker looks at, or none at all.
            "xenback backend/vif2/9/0", "xenback something else", "xenback backend/vif/nine/0", "another",
        ]
        interfaces.state.withLock { $0.owners = stay.union(["xenback backend/vif/9/0", "xenback backend/vif/1/7"]) }
        try await write(host, "backend/vif/1/0", state: "1")
        try await write(host, "backend/vif/1/2", state: "4")
        let (broker, task) = broker(host, interfaces)
        try await eventually("a worker") { await broker.process(of: DomainID(1)!) != nil }
        try await eventually("swept") { !interfaces.owned.contains("xenback backend/vif/9/0") }
        #expect(interfaces.state.withLock { $0.kept }.first == ["xenback backend/vif/1/2"])
        #expect(interfaces.owned.isSuperset(of: stay))
        await broker.stop()
        await task.value
    }

    /// While the worker lives it may be about to remove the interface itself, or to make it again.
    @Test func aWorkersInterfacesAreItsOwnBusinessUntilItIsGone() async throws {
        let host = try SimulatedHost()
        try host.machine.createDomain(DomainID(1)!)
        let interfaces = FakeInterfaces()
        let (broker, task) = broker(host, interfaces)
        try await write(host, "backend/vif/1/0", state: "4")
        try await write(host, "backend/vif/1/1", state: "4")
        try await eventually("both are parked") { interfaces.parked.count == 2 }
        interfaces.state.withLock { $0.owners = ["xenback backend/vif/1/0", "xenback backend/vif/1/1"] }
        try await host.dom0.store.remove("backend/vif/1/1")
        try await eventually("not parked any more") { interfaces.parked.count == 1 }
        // A whole scan later the interface is still there.
        try await write(host, "backend/vif/1/2", state: "4")
        try await eventually("the next is parked") { interfaces.parked.count == 2 }
        #expect(interfaces.owned.count == 2)
        let worker = try #require(await broker.process(of: DomainID(1)!))
        try await host.dom0.store.remove("backend/vif/1")
        // Killed before the broker has seen that, it would have a successor.
        try await eventually("none is parked") { interfaces.parked.isEmpty }
        kill(worker, SIGKILL)
        try await eventually("swept") { interfaces.owned.isEmpty }
        await broker.stop()
        await task.value
    }

    @Test func ownersAreDevicesAndBack() throws {
        let path = try #require(DevicePath(text: "backend/vif/7/0"))
        #expect(path.interfaceOwner == "xenback backend/vif/7/0")
        #expect(DevicePath(interfaceOwner: path.interfaceOwner) == path)
        for text in ["", "xenback", "xenback ", "backend/vif/7/0", "xenback backend/vif/7/0 ", "xenback backend/vif/7"]
        {
            #expect(DevicePath(interfaceOwner: text) == nil, "\(text)")
        }
    }
}

@Suite struct DeviceNameTests {
    private let names = [
        DeviceName(DevicePath(text: "backend/vif/7/0")!, node: nil),
        DeviceName(DevicePath(text: "backend/pci/7/0")!, node: nil),
        DeviceName(DevicePath(text: "backend/vif/7/1")!, node: nil),
        DeviceName(DevicePath(text: "backend/vbd3/7/51712")!, node: "xvda"),
    ]

    private func only(_ text: String) -> Result<String, ControlError> {
        Result { () throws(ControlError) in
            try DeviceName.only(text, of: DomainID(7)!, among: names).description
        }
    }

    @Test func oneNameIsOneDevice() {
        #expect(only("1") == .success("backend/vif/7/1"))
        #expect(only("vif/0") == .success("backend/vif/7/0"))
        #expect(only("pci/0") == .success("backend/pci/7/0"))
        for text in ["xvda", "51712", "vbd3/51712", "vbd/51712"] {
            #expect(only(text) == .success("backend/vbd3/7/51712"))
        }
        for text in ["", "2", "vif/2", "vif", "xvdb", "vif/7/0", "01"] {
            #expect(only(text) == .failure(.noSuchDevice(domain: "7", device: text)))
        }
    }

    @Test func aNumberOfTwoIsAnErrorThatSaysSo() {
        let error = ControlError.ambiguousDevice(domain: "7", device: "0", candidates: ["pci/0", "vif/0"])
        #expect(only("0") == .failure(error))
        #expect("\(error)" == "domain 7 has several devices '0'; say which: pci/0 or vif/0")
    }
}
