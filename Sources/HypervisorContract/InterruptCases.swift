// Promises of GuestInterrupts, as far as they can be tried without a card to give away.

internal import Hypervisor
internal import SystemPackage
internal import XenWire

extension HypervisorContract {
    /// No bus has such a function.
    private static let nowhere = PCIAddress(segment: 0xFFFF, bus: 0xFF, deviceFunction: 0xFF)

    static let interruptCases: [ContractCase] = [
        ContractCase("interrupts: a domain that is not there gets none") { subject in
            let interrupts = subject.backend.interrupts
            let mapping = try await expectFailure("mapping for a missing domain") {
                () throws(HypervisorFailure) in try interrupts.map(MessageInterrupt(nowhere), for: subject.missing)
            }
            try expectEqual(mapping.errno, .noSuchProcess, "the error of mapping")
            let unmapping = try await expectFailure("unmapping for a missing domain") {
                () throws(HypervisorFailure) in try interrupts.unmap(PhysicalInterrupt(999), of: subject.missing)
            }
            try expectEqual(unmapping.errno, .noSuchProcess, "the error of unmapping")
        },
        ContractCase("interrupts: a card that is not the domain's has none for it") { subject in
            let (interrupts, domain) = (subject.backend.interrupts, subject.frontend.domains.own)
            for row in [nil, MessageInterrupt.Row(entry: 0, tableBase: 0xF000_0000)] {
                let failure = try await expectFailure("mapping an interrupt of no card") {
                    () throws(HypervisorFailure) in
                    try interrupts.map(MessageInterrupt(nowhere, row: row), for: domain)
                }
                // ENODEV
                try expectEqual(failure.errno, .operationNotSupportedByDevice, "the error")
            }
        },
        ContractCase("interrupts: what is not mapped cannot be unmapped") { subject in
            let (interrupts, domain) = (subject.backend.interrupts, subject.frontend.domains.own)
            // More than any domain has.
            let failure = try await expectFailure("unmapping what is not mapped") {
                () throws(HypervisorFailure) in try interrupts.unmap(PhysicalInterrupt(0x7FFF_FFFF), of: domain)
            }
            try expectEqual(failure.errno, .invalidArgument, "the error")
        },
    ]
}
