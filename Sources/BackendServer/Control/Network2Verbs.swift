// The broker's verbs for netchannel2 cards: no xl knows them, so they are attached and detached here.

internal import BackendCore
internal import ControlProtocol
internal import Hypervisor
internal import Logging
internal import XenWire

extension BrokerVerbs {
    func addNetwork2Verbs(to dispatch: inout ControlDispatch) {
        dispatch.on(Network2Attach.self) { call throws(ControlError) in try await attach(call) }
        dispatch.on(Network2Detach.self) { call throws(ControlError) in
            let toolstack = try toolstack()
            let domain = try await domain(call.domain)
            let path = try DeviceName.only(call.device, of: domain, among: await netchannel2Names(of: domain))
            try await toolstack.detach(path, force: call.force ?? false)
            return NoParameters()
        }
    }

    private func attach(_ call: Network2Attach) async throws(ControlError) -> Network2Attach.Reply {
        let line: Network2Line
        do throws(DeviceLineError) {
            line = try Network2Line(parsing: call.card)
        } catch {
            throw .deviceFailed(reason: "\(error)")
        }
        let (toolstack, own) = (try toolstack(), own)
        guard await broker.classes.kinds.contains(.vif2) else {
            throw .notSupported(reason: "network cards are not served here: see [net] in xenbackd.toml")
        }
        let domain = try await domain(call.domain)
        let card: Network2Specification?
        do throws(HypervisorFailure) {
            card = try await store.transaction { (store) throws(HypervisorFailure) in
                let card = Network2Specification(
                    line,
                    domain: domain,
                    index: try Network2Specification.freeIndex(of: domain, in: store),
                    domainName: try store.read(domain.nameNode) ?? "\(domain)"
                )
                return try DeviceNodes(own: own, path: card.path).write(card, to: store) ? card : nil
            }
        } catch {
            throw .deviceFailed(reason: "XenStore: \(error)")
        }
        guard let card else { throw .deviceFailed(reason: "domain \(domain) has this card already") }
        try await toolstack.serve(card)
        return Network2Attach.Reply(device: await broker.shown(card.path))
    }

    /// All cards of this kind of a domain, as they are now: one that was made a moment ago may not be in the last scan.
    private func netchannel2Names(of domain: DomainID) async -> [DeviceName] {
        let scanned = try? await broker.scanned()
        let now = if let scanned { scanned } else { await broker.listing }
        return now.devices.values.filter { $0.isOurs && $0.path.kind == .vif2 && $0.path.domain == domain }
            .map { DeviceName($0.path, node: nil) }
    }
}
