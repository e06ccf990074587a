// Event channels: masks, pending events, and ends that come and go.

internal import Hypervisor
internal import SimulatedHypervisor
internal import SystemPackage
internal import TestSupport
internal import Testing
internal import XenWire

@Suite struct EventChannelTests {
    /// A frontend's port with a backend bound to it; events of the binding are taken already.
    private struct Channel {
        let machine: SimulatedMachine
        let frontend: any EventChannels
        let backend: any EventChannels
        let offered: EventChannelPort
        let bound: EventChannelPort

        init() throws {
            machine = try machineWithGuests()
            frontend = try machine.hypervisor(for: guestDomain).openEventChannels()
            backend = try machine.hypervisor(for: .initial).openEventChannels()
            offered = try frontend.allocate(for: .initial)
            bound = try backend.bind(to: offered, of: guestDomain)
            #expect(backend.takePending() == bound)
            backend.unmask(bound)
        }
    }

    @Test func bindingLeavesOneEventForWhatWasMissed() throws {
        let channel = try Channel()
        #expect(channel.backend.takePending() == nil)
        #expect(channel.frontend.takePending() == nil)
    }

    @Test func aPortIsMaskedUntilUnmaskedAndForgetsNothing() throws {
        let channel = try Channel()
        channel.frontend.notify(channel.offered)
        channel.frontend.notify(channel.offered)
        #expect(channel.backend.takePending() == channel.bound)
        #expect(channel.backend.takePending() == nil)
        channel.frontend.notify(channel.offered)
        #expect(channel.backend.takePending() == nil, "masked")
        channel.backend.unmask(channel.bound)
        #expect(channel.backend.takePending() == channel.bound, "the event of the masked time")
        channel.backend.unmask(channel.bound)
        #expect(channel.backend.takePending() == nil)
        channel.backend.notify(channel.bound)
        #expect(channel.frontend.takePending() == channel.offered)
    }

    @Test func onePortOfManyIsTold() throws {
        let channel = try Channel()
        let second = try channel.frontend.allocate(for: .initial)
        let bound = try channel.backend.bind(to: second, of: guestDomain)
        #expect(channel.backend.takePending() == bound)
        channel.backend.unmask(bound)
        channel.frontend.notify(second)
        #expect(channel.backend.takePending() == bound)
        #expect(channel.backend.takePending() == nil)
    }

    @Test func onlyAnUnboundPortForUsCanBeBound() throws {
        let channel = try Channel()
        let backend = channel.backend
        let forOther = try channel.frontend.allocate(for: otherDomain)
        for port in [channel.offered, forOther, EventChannelPort(4000), EventChannelPort(.max)] {
            let result = failure { () throws(HypervisorFailure) in _ = try backend.bind(to: port, of: guestDomain) }
            #expect(result == .invalidArgument)
        }
        let nobody = failure { () throws(HypervisorFailure) in
            _ = try backend.bind(to: channel.offered, of: DomainID(99)!)
        }
        #expect(nobody == .invalidArgument)
    }

    @Test func aSuccessorBindsTheSamePortAndHearsWhatItMissed() throws {
        let channel = try Channel()
        channel.backend.unbind(channel.bound)
        channel.frontend.notify(channel.offered)
        let successor = try channel.machine.hypervisor(for: .initial).openEventChannels()
        let bound = try successor.bind(to: channel.offered, of: guestDomain)
        #expect(successor.takePending() == bound)
        successor.unmask(bound)
        #expect(successor.takePending() == nil)
        successor.notify(bound)
        #expect(channel.frontend.takePending() == channel.offered)
        #expect(channel.backend.takePending() == nil)
    }

    /// As /dev/xen/evtchn of a killed process, which io_uring still polls.
    @Test func theDeadKeepTheirPortsForAWhile() async throws {
        let machine = try machineWithGuests()
        machine.setPortReleaseDelay(.seconds(3600))
        let frontend = try machine.hypervisor(for: guestDomain).openEventChannels()
        let offered = try frontend.allocate(for: .initial)
        var dying: (any EventChannels)? = try machine.hypervisor(for: .initial).openEventChannels()
        _ = try #require(try dying?.bind(to: offered, of: guestDomain))
        let connections = machine.usage(of: .initial)?.connections
        dying = nil
        #expect(await eventually { machine.usage(of: .initial)?.connections != connections })
        let successor = try machine.hypervisor(for: .initial).openEventChannels()
        let result = failure { () throws(HypervisorFailure) in
            _ = try successor.bind(to: offered, of: guestDomain)
        }
        #expect(result == .invalidArgument)
        #expect(machine.usage(of: .initial)?.ports == 1)
    }

    @Test func aFrontendThatGoesTakesItsPort() throws {
        let channel = try Channel()
        channel.frontend.unbind(channel.offered)
        channel.backend.notify(channel.bound)
        #expect(channel.machine.usage(of: guestDomain)?.ports == 0)
        #expect(channel.machine.usage(of: .initial)?.ports == 1)
        channel.backend.unbind(channel.bound)
        #expect(channel.machine.usage(of: .initial)?.ports == 0)
    }

    @Test func notifyingFromManyThreadsLosesNoLastEvent() async throws {
        let channel = try Channel()
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<8 {
                group.addTask { for _ in 0..<500 { channel.frontend.notify(channel.offered) } }
            }
        }
        #expect(channel.backend.takePending() == channel.bound)
    }
}
