// xenback pci-vf CARD [INDEX] [--count N] [--mac …] [--vlan …] [--spoof-check …] [--trust …]

import ArgumentParser
import ControlProtocol

struct PCIVirtualFunctionsCommand: ParsableCommand {
    /// As ip(8) has it.
    enum Switch: String, ExpressibleByArgument {
        case on
        case off
    }

    static let configuration = CommandConfiguration(
        commandName: "pci-vf",
        abstract: "Show, make, remove and set the virtual functions (SR-IOV) of a PCI card.",
        discussion: """
            --count says how many there are to be; other functions than those wanted must be nobody's. An INDEX and \
            settings change one of them, of a network card, before a guest gets it.
            """
    )

    @Argument(help: "The card that has them: 08:00.0 or 0000:08:00.0.") var card: String
    @Argument(help: "One of them, from 0.") var index: Int?
    @Option(help: "How many there are to be; 0 removes them all.") var count: Int?
    @Option(help: "The function's address: 00:16:3e:01:02:03.") var mac: String?
    @Option(help: "Its VLAN, 1 to 4094; 0 for none.") var vlan: Int?
    @Option(help: "Drop packets with another sender's address: on or off.") var spoofCheck: Switch?
    @Option(help: "Let the guest change its address and listen to all: on or off.") var trust: Switch?
    @OptionGroup var options: CallOptions

    private var hasSettings: Bool { mac != nil || vlan != nil || spoofCheck != nil || trust != nil }

    func validate() throws {
        if index == nil, hasSettings { throw ValidationError("which function? Give its INDEX, from 0.") }
        if index != nil, !hasSettings {
            throw ValidationError("say what to set: --mac, --vlan, --spoof-check, --trust.")
        }
        if index != nil, count != nil { throw ValidationError("--count is for all of them: leave INDEX out.") }
    }

    func run() throws {
        guard let index else { return try options.call(PCIVirtualFunctions(card: card, count: count)) { $0.text } }
        let verb = PCIVirtualFunctionSet(
            card: card,
            index: index,
            address: mac,
            vlan: vlan,
            spoofCheck: spoofCheck.map { $0 == .on },
            trust: trust.map { $0 == .on }
        )
        try options.call(verb) { $0.text }
    }
}
