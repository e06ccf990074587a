// Two guests with a network card each, and the switch between them.

import FrontendDrivers
import HostIO
import HostNetwork
import SimulatedHost
import SimulatedHypervisor
import SystemPackage
import XenWire

/// What the network's part of the demo starts beside the stage.
final class DemoNetworkStage: Stage {
    static let domains = [DomainID(2)!, DomainID(3)!]
    /// Where the switch listens, in the demo's directory.
    static let folder = "net"

    struct Guest: Sendable {
        let domain: DomainID
        let address: MACAddress
        let loop: EventLoop
        let card: SimulatedToolstack.NetworkCard
        let frontend: NetworkFrontend
    }

    let guests: [Guest]
    private let toolstack: SimulatedToolstack
    private let exchange: PacketExchange

    init(on stage: DemoStage) throws {
        toolstack = stage.toolstack
        let folder = stage.directory.appending(Self.folder)
        try Files.makeDirectory(folder, permissions: .ownerReadWriteExecute)
        exchange = try PacketExchange(directory: folder)
        var guests: [Guest] = []
        for domain in Self.domains {
            try stage.machine.createDomain(domain)
            let path = DevicePath(kind: .vif, domain: domain, index: 0)
            try exchange.add("vif\(domain).0")
            var card = SimulatedToolstack.NetworkCard(path)
            card.mac = MACAddress(0x00, 0x16, 0x3E, 0, 0, UInt8(truncatingIfNeeded: domain.rawValue))
            // No script: the switch has no ports that one could put into a bridge.
            card.script = nil
            let loop = try EventLoop(name: "guest \(domain)")
            let frontend = NetworkFrontend(try stage.machine.hypervisor(for: domain), loop: loop, index: 0)
            guests.append(Guest(domain: domain, address: card.mac, loop: loop, card: card, frontend: frontend))
        }
        self.guests = guests
    }

    /// What `xl create` and the boot of both guests do.
    func attach() async throws {
        for guest in guests {
            try await toolstack.attach(guest.card)
            try await guest.frontend.connect()
        }
    }

    /// What `xl network-detach` does.
    func detach() async throws {
        for guest in guests { try await toolstack.detach(guest.card) }
    }

    func strike() async {
        for guest in guests {
            await guest.frontend.abandon()
            guest.loop.shutDown()
        }
        exchange.shutDown()
    }
}
