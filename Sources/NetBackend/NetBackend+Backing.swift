// The host's interface of a card: made before state 2, kept while workers come and go.

internal import BackendCore
internal import HostIO
internal import HostNetwork
internal import Logging
internal import XenWire

extension NetBackend {
    func openBacking(isTakeover: Bool) async throws(BackendFailure) {
        let plan = try plan()
        let host = host
        let result = await environment.controlLoop.blocking { () -> Result<any PacketDevice, NetworkFailure> in
            do throws(NetworkFailure) { return .success(try host.open(plan)) } catch { return .failure(error) }
        }
        do throws(NetworkFailure) {
            interface = try result.get()
        } catch {
            throw BackendFailure(error)
        }
    }

    /// Takes the interface away, unless a successor goes on with it.
    func closeBacking() async {
        guard interface != nil else { return }
        interface = nil
        guard !life.isDraining, let plan = try? plan() else { return }
        let host = host
        let failure = await environment.controlLoop.blocking { () -> NetworkFailure? in
            do throws(NetworkFailure) {
                try host.remove(plan)
                return nil
            } catch {
                return error
            }
        }
        if let failure { life.log.failure("the interface stays: \(failure)") }
    }

    /// Nobody asks us by a script of ours; libxl's own write `hotplug-status`.
    var announcement: [(String, String)]? { nil }

    private func plan() throws(BackendFailure) -> InterfacePlan {
        guard let keys else { throw BackendFailure(.host, "no keys yet") }
        return try keys.plan(owner: "xenback \(path)", isNative: isPlacedNatively)
    }
}

extension BackendFailure {
    init(_ failure: NetworkFailure) {
        let kind: Kind =
            switch failure.kind {
            case .notFound: .notFound
            case .busy: .busy
            case .invalid: .invalid
            case .host: .host
            }
        self.init(kind, failure.text)
    }
}
