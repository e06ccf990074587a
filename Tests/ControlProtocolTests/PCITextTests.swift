// Cards as text.

import ControlProtocol
import Testing

@Suite struct PCITextTests {
    private static let card = PCIDevice(
        address: "0000:08:05.0",
        vendor: 0x8086,
        product: 0xD3,
        deviceClass: 0x02_0000,
        driver: "pciback"
    )

    @Test func lists() {
        var evil = Self.card
        evil.address = "0000:\u{1B}[2J"
        #expect(PCIListAssignable.Reply(cards: [Self.card, evil]).text == "0000:08:05.0\n0000:?[2J\n")
        #expect(PCIListAssignable.Reply(cards: []).text.isEmpty)
        #expect(Self.card.text == "0000:08:05.0: ID 8086:00d3 class 0200")
    }

    @Test func checks() {
        let good = PCIFinding(verdict: "good", subject: "reset", text: "flr")
        let bad = PCIFinding(verdict: "obstacle", subject: "driver", text: "the host uses it")
        var reply = PCICheck.Reply(card: Self.card, findings: [good], line: "pci = ['0000:08:05.0']")
        #expect(
            reply.text == """
                0000:08:05.0: ID 8086:00d3 class 0200
                verdict  subject  what and why
                good     reset    flr

                pci = ['0000:08:05.0']

                """
        )
        reply.findings.append(bad)
        #expect(!reply.isAssignable && reply.text.hasSuffix("\n\nit cannot be given away like this\n"))
        #expect(reply.text.contains("obstacle  driver   the host uses it\n"))
    }

    @Test func cardsOfAGuest() {
        var card = PCIAssignedCard(address: "0000:08:05.0", state: "initialised", options: "permissive=1")
        (card.virtualAddress, card.server, card.vendor, card.product) = ("0000:00:00.0", "kernel", 0x8086, 0xD3)
        #expect(
            PCIList.Reply(cards: [card]).text == """
                VDEV          DEVICE        ID         STATE        SERVED BY  OPTIONS
                0000:00:00.0  0000:08:05.0  8086:00d3  initialised  kernel     permissive=1

                """
        )
        #expect(PCIList.Reply(cards: []).text == "no PCI cards\n")
    }

    @Test func virtualFunctions() {
        let function = PCIVirtualFunction(
            index: 1,
            card: Self.card,
            domain: 7,
            address: "00:16:3e:00:00:01",
            vlan: 10,
            trust: false
        )
        #expect(
            PCIVirtualFunctions.Reply(card: Self.card, limit: 8, functions: [function]).text == """
                0000:08:05.0: 1 of 8 virtual functions
                VF  DEVICE        ID         DRIVER   DOMAIN  MAC                VLAN  TRUST
                1   0000:08:05.0  8086:00d3  pciback  7       00:16:3e:00:00:01  10    off

                """
        )
        #expect(
            PCIVirtualFunctions.Reply(card: Self.card, limit: 8, functions: []).text
                == "0000:08:05.0: 0 of 8 virtual functions\n"
        )
    }

    @Test func onlyWhatIsNotGoodIsSaid() {
        let findings = [
            PCIFinding(verdict: "good", subject: "driver", text: "hidden"),
            PCIFinding(verdict: "warning", subject: "reset", text: "there is \u{1B}none"),
        ]
        let check = PCICheck.Reply(card: Self.card, findings: findings, line: "")
        let reply = PCIPrepare.Reply(domain: 7, checks: [check], line: "08:05.0")
        #expect(reply.warnings == "0000:08:05.0: warning: there is ?none\n" && reply.isAssignable)
    }
}
