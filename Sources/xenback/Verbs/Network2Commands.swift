// xenback network2-attach DOMAIN [KEY=VALUE…], network2-detach DOMAIN DEVICE, network2-list DOMAIN

import ArgumentParser
import ControlProtocol

struct Network2AttachCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "network2-attach",
        abstract: "Give a running domain a netchannel2 card (vif2), which no xl knows.",
        discussion: """
            What to say about the card is a line as xm 4.0 had it (vif2=['bridge=eth1']), or its parts as words:
              xenback network2-attach web1 bridge=xenbr0 mac=00:16:3e:12:34:56
              xenback network2-attach web1 'bridge=eth1, filter_mac=0, max_bypasses=0'
            Keys: bridge, mac (or front_mac), back_mac, trusted, back_trusted, filter_mac, front_filter_mac, pdev, \
            max_bypasses; rate (10Mb/s@50ms) and mtu as for vif.
            """
    )

    @Argument var domain: String
    @Argument(help: "bridge=, mac=, rate=, mtu= …") var card: [String] = []
    @OptionGroup var options: CallOptions

    func run() throws {
        let line = card.joined(separator: ",")
        do throws(DeviceLineError) {
            _ = try Network2Line(parsing: line)
        } catch {
            throw Terminal.failure("xenback: \(error)")
        }
        try options.call(Network2Attach(domain: domain, card: line)) { reply in
            "attached netchannel2 card \(reply.device.index) as \(reply.device.path)\n"
        }
    }
}

struct Network2DetachCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "network2-detach",
        abstract: "Take a netchannel2 card from a running domain."
    )

    @Argument var domain: String
    @Argument(help: "The card's number, or vif2/0.") var device: String
    @Flag(help: "Take it away even if the guest does not let go of it in time.")
    var force = false
    @OptionGroup var options: CallOptions

    func run() throws {
        let verb = Network2Detach(domain: domain, device: device, force: force ? true : nil)
        try options.call(verb) { _ in "detached netchannel2 card \(device)\n" }
    }
}

struct Network2ListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "network2-list",
        abstract: "A domain's netchannel2 cards, as network-list shows them among the others."
    )

    @Argument var domain: String
    @OptionGroup var options: CallOptions

    func run() throws {
        try options.call(NetworkList(domain: domain)) { reply in
            NetworkList.Reply(cards: reply.cards.filter { $0.device.kind == "vif2" }).text
        }
    }
}
