// Places on a guest's buses in all three modes, and which interrupts may follow which.

import Testing
import XenWire

@Suite struct PCIVirtualBuses {
    private func card(_ text: String) throws -> PCIAddress { try PCIAddress(parsing: text) }

    /// What `add` is refused with.
    private func refusal(_ bus: PCIVirtualBus, _ host: PCIAddress, published: PCIAddress? = nil) -> PCIBusFault? {
        var bus = bus
        do throws(PCIBusFault) {
            try bus.add(host, published: published)
            return nil
        } catch {
            return error
        }
    }

    @Test(
        arguments: [
            (.virtual, ["0000:00:00.0", "0000:00:00.1", "0000:00:01.3", "0000:00:02.0"], ["0000:00"]),
            (.slot, ["0000:00:00.0", "0000:00:01.0", "0000:00:02.0", "0000:00:03.0"], ["0000:00"]),
            (
                .passthrough, ["0000:08:05.0", "0000:08:05.1", "0000:09:00.3", "0001:08:05.0"],
                ["0000:08", "0000:09", "0001:08"]
            ),
        ] as [(PCIBusMode, [String], [String])]
    )
    func modes(_ mode: PCIBusMode, _ places: [String], _ roots: [String]) throws {
        var bus = PCIVirtualBus(mode)
        let hosts = try ["08:05.0", "08:05.1", "09:00.3", "0001:08:05.0"].map { try card($0) }
        #expect(try hosts.map { try bus.add($0).description } == places)
        #expect(bus.roots.map(\.description) == roots)
        for host in hosts { #expect(try bus.host(at: #require(bus.guest(of: host))) == host) }
        #expect(bus.host(at: PCIAddress(segment: 7, bus: 7, deviceFunction: 7)) == nil)
        #expect(refusal(bus, hosts[2]) == .present(hosts[2]))
    }

    /// Virtual functions have their device's number by chance only.
    @Test func virtualFunctions() throws {
        var bus = PCIVirtualBus(.virtual)
        #expect(try bus.add(card("02:10.0")).description == "0000:00:00.0")
        #expect(try bus.add(card("02:10.2"), isVirtualFunction: true).description == "0000:00:01.0")
        #expect(try bus.add(card("02:10.4"), isVirtualFunction: true).description == "0000:00:02.0")
        #expect(try bus.add(card("02:10.1")).description == "0000:00:00.1")
    }

    /// A card that goes leaves its place; those that stay do not move.
    @Test func comingAndGoing() throws {
        var bus = PCIVirtualBus(.virtual)
        for text in ["01:00.0", "02:00.0", "03:00.0"] { try bus.add(card(text)) }
        #expect(try bus.remove(card("02:00.0")) && !bus.remove(card("02:00.0")))
        #expect(try bus.guest(of: card("03:00.0"))?.description == "0000:00:02.0")
        #expect(try bus.add(card("04:00.5")).description == "0000:00:01.5")
    }

    @Test func full() throws {
        var bus = PCIVirtualBus(.virtual)
        for number in 0..<32 as Range<UInt8> { try bus.add(PCIAddress(bus: number, deviceFunction: 0)) }
        let late = try card("ff:00.0")
        #expect(refusal(bus, late) == .full(late) && "\(PCIBusFault.full(late))".contains("32"))
        // A function of a device that is there has room.
        #expect(try bus.add(card("05:00.7")).description == "0000:00:05.7")
    }

    /// A successor finds every card where `vdev-N` says, in whatever order it learns of them.
    @Test func takeover() throws {
        var first = PCIVirtualBus(.virtual)
        for text in ["01:00.0", "02:00.0", "02:00.1"] { try first.add(card(text)) }
        first.remove(try card("01:00.0"))
        var second = PCIVirtualBus(.virtual)
        for card in first.cards.reversed() { try second.add(card.host, published: card.guest) }
        #expect(Set(second.cards) == Set(first.cards))
        #expect(try second.add(card("03:00.0")).description == "0000:00:00.0")
        let place = try card("00:01.0")
        #expect(try refusal(second, card("04:00.0"), published: place) == .taken(place, by: card("02:00.0")))
    }
}

@Suite struct PCIInterruptModes {
    private func answer(_ body: () throws(PCIError) -> Void) -> PCIError {
        do throws(PCIError) {
            try body()
            return .success
        } catch {
            return error
        }
    }

    @Test func enableMSI() {
        let table: [(PCIInterruptMode, Bool, PCIError)] = [
            (.line, true, .success), (.line, false, .operationFailed), (.message(9), true, .operationFailed),
            (.messages([]), true, .operationFailed),
        ]
        for (mode, hasMSI, expected) in table {
            #expect(answer { () throws(PCIError) in try mode.enableMSI(hasMSI: hasMSI) } == expected)
        }
    }

    @Test func enableMSIX() {
        let table: [(PCIInterruptMode, [UInt16], Int?, Bool, PCIError)] = [
            (.line, [0, 4], 5, true, .success), (.line, [0, 5], 5, true, .invalidArgument),
            (.line, [0], nil, true, .notPossible),
            (.line, [0], 5, false, .notPossible), (.message(9), [0], 5, true, .notPossible),
            (.messages([]), [0], 5, true, .already), (.line, [.max], 2048, true, .invalidArgument),
        ]
        for (mode, entries, size, decodes, expected) in table {
            let result = answer { () throws(PCIError) in
                try mode.enableMSIX(entries, tableSize: size, decodesMemory: decodes)
            }
            #expect(result == expected)
        }
    }

    @Test func whatThereIsToDisable() {
        #expect(!PCIInterruptMode.line.isMSI && !PCIInterruptMode.line.isMSIX)
        #expect(PCIInterruptMode.message(1).isMSI && !PCIInterruptMode.message(1).isMSIX)
        #expect(PCIInterruptMode.messages([]).isMSIX && !PCIInterruptMode.messages([]).isMSI)
    }
}
