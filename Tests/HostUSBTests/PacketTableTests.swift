// Rows of packets.

import Testing

@testable import HostUSB

@Suite struct PacketTableTests {
    @Test func rowsAreApart() {
        let table = USBPacketTable(slots: 3, limit: 4)
        for slot in UInt32(0)..<3 { for index in 0..<4 { table[slot, index].byteCount = slot * 10 + UInt32(index) } }
        for slot in UInt32(0)..<3 {
            for index in 0..<4 { #expect(table[slot, index] == USBPacket(byteCount: slot * 10 + UInt32(index))) }
        }
    }

    @Test func positionsAreChecked() async {
        await #expect(processExitsWith: .failure) { _ = USBPacketTable(slots: 3, limit: 4)[1, 4] }
        await #expect(processExitsWith: .failure) { _ = USBPacketTable(slots: 3, limit: 4)[3, 0] }
    }
}
