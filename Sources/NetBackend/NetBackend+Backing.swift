// The host's interface of a card, whatever protocol it speaks: made before state 2, kept while workers come and go.

internal import BackendCore
internal import HostIO
internal import HostNetwork
internal import Logging
internal import XenWire

/// A device whose backing is an interface of the host's.
protocol InterfaceShell: DeviceShell {
    var host: any NetworkHost { get }
    /// What the toolstack specified; nil before `run`.
    var keys: NetDeviceKeys? { get }
    /// We, and no script, put the interface into its bridge or route.
    var isPlacedNatively: Bool { get }
    var interface: (any PacketDevice)? { get set }
    /// From the first connection until the interface is removed.
    var placeWatch: PlaceWatch? { get set }
    /// Changes of the interface that were undone.
    var placeRepairs: UInt64 { get set }
    /// The connection's; nil while there is none.
    var latch: BreakdownLatch? { get }
}

extension InterfaceShell {
    /// A card that is just going keeps the name of its interface for a moment; whoever has it after this is named.
    private var namePatience: Duration { .seconds(2) }

    func openBacking(isTakeover: Bool) async throws(BackendFailure) {
        let plan = try plan()
        let (host, loop) = (host, environment.controlLoop)
        interface = try await waitForName { () async throws(HostFailure) in
            try await loop.blocking { () throws(HostFailure) in try host.open(plan) }
        }
    }

    /// Retries for a while what fails because another card has the name, and nothing else.
    private func waitForName<Result>(
        _ attempt: () async throws(HostFailure) -> Result
    ) async throws(BackendFailure) -> Result {
        try await wait(for: "the interface's name", within: namePatience) { () async throws(BackendFailure) in
            do throws(HostFailure) { return try await attempt() } catch {
                let failure = BackendFailure(error)
                throw BackendFailure(failure.kind, failure.text, mayPass: error.kind == .busy)
            }
        }
    }

    /// Removes the interface, unless a successor is to go on with it.
    func closeBacking() async {
        placeWatch?.close()
        placeWatch = nil
        guard interface != nil else { return }
        interface = nil
        guard !life.isDraining, let plan = try? plan() else { return }
        let host = host
        do throws(HostFailure) {
            try await environment.controlLoop.blocking { () throws(HostFailure) in try host.remove(plan) }
        } catch {
            life.log.failure("the interface stays: \(error)")
        }
    }

    /// Once the script is done, the interface is to stay as the script left it.
    /// - Parameter isTakeover: the administrator may have renamed the interface.
    func watchPlace(_ interface: any PacketDevice, isTakeover: Bool) async throws(BackendFailure) {
        guard placeWatch == nil, let keys else { return }
        do throws(BackendFailure) {
            let keeper = try await waitForName { () async throws(HostFailure) in
                try interface.keepPlace(
                    named: isTakeover ? nil : keys.interface,
                    keys.scriptedPlacement,
                    mtu: keys.mtu.flatMap { UInt32(decimal: $0) }
                )
            }
            guard let keeper else { return }
            placeWatch = PlaceWatch(keeper, on: environment.controlLoop, raising: signal)
        } catch {
            // The script could not give it the name, and may have configured the interface that has it.
            if error.kind == .busy { throw error }
            life.log.failure("\(path): changes of the interface go unnoticed: \(error)")
        }
    }

    /// Undoes what somebody else has changed of the interface.
    func keepPlace() async {
        guard let placeWatch, placeWatch.takeChange() else { return }
        for report in await environment.controlLoop.blocking({ placeWatch.keeper.look() }) {
            switch report.outcome {
            case .putBack:
                placeRepairs &+= 1
                life.say(report.text, level: .warning)
            case .left: life.say(report.text, level: .warning)
            case .failed: life.log.failure(report.text)
            case .gone: latch?.raise(.host(report.text))
            }
        }
    }

    /// Network cards have no hotplug script of ours; libxl's scripts write `hotplug-status` themselves.
    var announcement: [(String, String)]? { nil }

    private func plan() throws(BackendFailure) -> InterfacePlan {
        guard let keys else { throw BackendFailure(.host, "no keys yet") }
        return try keys.plan(owner: "xenback \(path)", isNative: isPlacedNatively)
    }
}
