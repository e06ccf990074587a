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
}
