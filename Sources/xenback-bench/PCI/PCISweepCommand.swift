// The `pci-sweep` subcommand: in a guest, writes every byte of its cards' configuration spaces as a hostile driver would.

internal import ArgumentParser
internal import FrontendDrivers
internal import HostIO
internal import XenHypervisor
internal import XenWire

struct PCISweepCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "pci-sweep",
        abstract: "Write every byte of the guest's PCI cards with four patterns, through a frontend of our own.",
        discussion: """
            Run it as root in a PV guest whose kernel has no pcifront (blacklist xen-pcifront): two frontends on one page are \
            nobody's test. What the cards read as before and after is compared by the guest; compare it in dom0, too.
            """
    )

    @Option(help: "Bytes of each write: 1, 2 or 4.")
    var size: Int32 = 1

    func validate() throws {
        guard [1, 2, 4].contains(size) else { throw ValidationError("--size is 1, 2 or 4") }
    }

    func run() async throws {
        let loop = try EventLoop(name: "frontend")
        defer { loop.shutDown() }
        let frontend = PCIFrontend(try XenHypervisor(), loop: loop)
        try await frontend.connect(within: .seconds(30))
        for function in await frontend.functions {
            let report = try await PCISweep(frontend, function.address).run(size: size)
            let changed = report.changed.map { String($0, radix: 16) }.joined(separator: " ")
            let refused = report.refused.values.reduce(0, +)
            print("\(function.address): \(report.writes) writes, \(refused) refused, bytes that changed: \(changed)")
        }
        try await frontend.close()
    }
}
