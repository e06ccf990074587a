// The contract, case by case, on the simulation.

import Hypervisor
import HypervisorContract
import SimulatedHypervisor
import Testing
import XenWire

@Suite struct HypervisorContractTests {
    @Test(arguments: HypervisorContract.cases)
    func simulationKeepsThePromise(_ promise: ContractCase) async throws {
        let machine = try SimulatedMachine()
        let guest = try #require(DomainID(1))
        try machine.createDomain(guest)
        try await promise.check(
            HypervisorUnderTest(
                backend: machine.hypervisor(for: .initial),
                frontend: machine.hypervisor(for: guest),
                neighbour: machine.hypervisor(for: .initial),
                missing: try #require(DomainID(99)),
                scratch: "/contract"
            )
        )
    }

    /// The suite itself can fail, and says why.
    @Test func aBrokenPromiseIsReported() async throws {
        let machine = try SimulatedMachine()
        let own = try machine.hypervisor(for: .initial)
        // Domain 0 is no missing domain: the case that asks for it must fail, and no other is tried.
        var lines: [String] = []
        let (passed, failed) = await HypervisorContract.run(
            HypervisorContract.cases.filter { $0.name.contains("not there has no identity") },
            on: HypervisorUnderTest(
                backend: own,
                frontend: own,
                neighbour: own,
                missing: .initial,
                scratch: "/contract"
            ),
            telling: { lines.append($0) }
        )
        #expect(passed == 0 && failed == 1)
        #expect(lines.first?.hasPrefix("FAILED") == true)
        #expect(lines.last == "0 passed, 1 failed")
    }
}
