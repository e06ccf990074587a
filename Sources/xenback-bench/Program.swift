// xenback-bench: measurements and checks that are no unit tests.

internal import ArgumentParser

@main
struct Program: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "xenback-bench",
        abstract: "Measure and check the parts of xenback.",
        subcommands: [
            Contract.self, RingBench.self, BlockBench.self, NetBench.self, USBBench.self, PCISweepCommand.self,
        ]
    )
}
