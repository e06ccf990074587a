// Addresses and rules: the texts that are understood, those that are not, and what they match.

import HostIO
import Testing

@testable import HostUSB

/// A flash disk at 3-1.5.
func stick(_ address: String = "3-1.5") throws -> USBDeviceFacts {
    var facts = USBDeviceFacts(
        address: try #require(USBBusAddress(address)),
        busNumber: 3,
        deviceNumber: 7,
        vendor: 0x0781,
        product: 0x5581,
        deviceClass: 0,
        speed: .high
    )
    facts.serial = "4C53/00 1"
    facts.interfaceClasses = [0x08]
    return facts
}

@Suite struct RuleTests {
    @Test(arguments: ["1-1", "3-1.5", "99-99", "10-1.2.3.4.5.6", "1-10.20"])
    func addressesPrintAsTheyWereRead(_ text: String) throws {
        #expect(try #require(USBBusAddress(text)).description == text)
    }

    @Test(arguments: [
        "", "-", "1", "1-", "-1", "0-1", "1-0", "1-1.0", "01-1", "1-01", "100-1", "1-100", "1-1.", "1-.1", "1-1..2",
        "1-1.2.3.4.5.6.7", "1-1-1", " 1-1", "1-1 ", "1-1:1.0", "usb1", "1-1\n", "+1-1", "1-+1", "1-a", "１-1", "1_1",
        "1-1,2", "../1-1",
    ])
    func otherTextsAreNoAddresses(_ text: String) { #expect(USBBusAddress(text) == nil) }

    @Test func addressesAreInOrder() throws {
        let texts = ["1-1", "1-1.1", "1-2", "1-10", "2-1", "10-1"]
        #expect(texts.shuffled().compactMap { USBBusAddress($0) }.sorted().map(\.description) == texts)
    }

    @Test(arguments: [
        "1-1", "3-1.5", "0781:5581", "class=08", "serial=X", "0781:5581/serial=4C53", "0781:5581/class=08",
        "0781:5581/class=08/serial=4C53/00 1", "class=ff/serial=class=08", "0781:abcd/serial=Größe",
    ])
    func rulesPrintAsTheyWereRead(_ text: String) throws { #expect(try USBDeviceRule(text).description == text) }

    @Test func rulesAreReadInCapitalsToo() throws {
        #expect(try USBDeviceRule("0781:ABCD/class=FF").description == "0781:abcd/class=ff")
    }

    @Test(arguments: [
        "", "/", "781:5581", "0781:558", "0781:55811", "0781:5581/", "0781:5581//serial=1", "/0781:5581", "class=8",
        "class=08/0781:5581", "class=08/class=0e", "class=09", "0781:5581/class=09", "class=", "serial=",
        "0781:5581/1-1", "1-1/serial=X", "1-1/class=08", "0781:5581:1", "+781:5581", "0781:+581", "0781-5581",
        "serial=a\nb", "serial=\u{7}", "vendor=0781", "0781:5581 ", "class=+8", "Serial=1",
    ])
    func otherTextsAreNoRules(_ text: String) {
        do throws(HostFailure) {
            _ = try USBDeviceRule(text)
            Issue.record("'\(text)' was taken")
        } catch {
            #expect(error.kind == .invalid)
            #expect(!error.text.unicodeScalars.contains { $0.value < 0x20 })
        }
    }

    @Test func serialsAreAsLongAsDescriptorsAllow() throws {
        #expect(throws: Never.self) { try USBDeviceRule("serial=" + String(repeating: "x", count: 126)) }
        #expect(throws: HostFailure.self) { try USBDeviceRule("serial=" + String(repeating: "x", count: 127)) }
    }

    @Test(arguments: [
        ("3-1.5", true), ("3-1", false), ("0781:5581", true), ("0781:5580", false), ("0780:5581", false),
        ("class=08", true), ("class=03", false), ("serial=4C53/00 1", true), ("serial=4C53", false),
        ("0781:5581/serial=4C53/00 1", true), ("0781:5581/serial=4C53", false), ("0781:5581/class=08", true),
        ("0781:5581/class=03/serial=4C53/00 1", false),
    ])
    func rulesMatch(_ text: String, _ expected: Bool) throws {
        #expect(try USBDeviceRule(text).matches(stick()) == expected)
    }

    @Test func rulesFollowTheDevice() throws {
        for rule in [try USBDeviceRule("0781:5581"), try USBDeviceRule("class=08")] {
            #expect(try rule.matches(stick("1-1")) && rule.matches(stick("9-9.9")))
            #expect(rule.address == nil)
        }
        #expect(try USBDeviceRule("1-1").address == USBBusAddress("1-1"))
        var audio = try stick()
        audio.deviceClass = 0xef
        audio.interfaceClasses = [0x01, 0x03]
        #expect(try USBDeviceRule("class=ef").matches(audio) && USBDeviceRule("class=01").matches(audio))
    }

    @Test func hubsMatchNothing() throws {
        var hub = try stick()
        hub.deviceClass = 0x09
        for text in ["3-1.5", "0781:5581", "class=08", "serial=4C53/00 1"] {
            #expect(try !USBDeviceRule(text).matches(hub))
        }
    }

    @Test func factsArePrintedForPeople() throws {
        var facts = try stick()
        #expect("\(facts)" == "3-1.5: ID 0781:5581")
        facts.manufacturerName = "San\u{1b}[31mDisk"
        facts.productName = "Ultra\u{202e}"
        #expect("\(facts)" == "3-1.5: ID 0781:5581 San?[31mDisk Ultra?")
    }
}
