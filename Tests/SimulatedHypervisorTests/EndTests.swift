// The machine's end, as an attached process learns of it.

internal import Glibc
internal import Hypervisor
internal import SimulatedHypervisor
internal import Synchronization
internal import TestSupport
internal import Testing
internal import XenWire

@Suite struct EndTests {
    @Test func whoeverAsksIsToldThatTheMachineIsGone() async throws {
        var machine: SimulatedMachine? = try machineWithGuests()
        let hypervisor = try #require(try machine?.hypervisor(for: .initial))
        let told = Told()
        try hypervisor.whenMachineEnds { told.flag.store(true, ordering: .relaxed) }
        try await Task.sleep(for: .milliseconds(20))
        #expect(told.flag.load(ordering: .relaxed) == false)
        machine = nil
        #expect(await eventually { told.flag.load(ordering: .relaxed) })
    }
}

private final class Told: Sendable { let flag = Atomic(false) }
