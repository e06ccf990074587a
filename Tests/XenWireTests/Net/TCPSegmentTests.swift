// Whole TCP packets cut into segments: headers, flags, checksums, and every byte of data once.

import Testing
import XenWire

@Suite struct TCPSegmentTests {
    /// A sample with FIN, PSH and CWR set.
    private func whole(_ sample: SamplePacket) -> TestBytes {
        let packet = TestBytes(sample.bytes)
        packet.set8(0x99, at: sample.transportOffset + 13)
        return packet
    }

    @Test(arguments: SamplePacket.all.filter { $0.transport == .tcp }, [1, 4, 10, 11, 1448] as [UInt16])
    func everySegmentIsAPacketOfItsOwn(_ sample: SamplePacket, size: UInt16) throws {
        let packet = whole(sample)
        let segments = try #require(
            TCPSegments(headers: sample.headers, size: size, byteCount: packet.byteCount)
        )
        #expect(segments.count == (segments.dataBytes + Int(size) - 1) / Int(size))
        var data: [UInt8] = []
        for index in 0..<segments.count {
            let range = segments.offset(index)..<segments.offset(index) + segments.length(index)
            let cut = TestBytes(Array(packet.bytes[..<segments.headerBytes] + packet.bytes[range]))
            segments.finish(index, cut)
            let headers = PacketHeaders(parsing: cut, count: cut.byteCount)
            #expect(headers == sample.headers, "lengths and versions are right")
            #expect(InternetChecksum.isRight(cut, headers: headers, count: cut.byteCount))
            let (network, transport) = (sample.networkOffset, sample.transportOffset)
            if sample.network == .ipv4 {
                #expect(Int(cut.u16(network + 2).byteSwapped) == cut.byteCount - network)
                #expect(cut.u16(network + 4).byteSwapped == 0x1234 + UInt16(index))
                var sum = InternetChecksum()
                sum.add(cut, at: network, count: transport - network)
                #expect(sum.sum == 0xFFFF)
            } else {
                #expect(Int(cut.u16(network + 4).byteSwapped) == cut.byteCount - network - 40)
            }
            #expect(cut.u32(transport + 4).byteSwapped == 0x0102_0304 + UInt32(index) * UInt32(size))
            let (isFirst, isLast) = (index == 0, index == segments.count - 1)
            #expect(cut.u8(transport + 13) == 0x10 | (isFirst ? 0x80 : 0) | (isLast ? 0x09 : 0))
            data += cut.bytes[segments.headerBytes...]
        }
        #expect(data == Array(sample.bytes[sample.headerEnd...]))
    }

    @Test func whatCannotBeCut() {
        let (tcp, udp) = (SamplePacket.tcp4, SamplePacket.udp4)
        #expect(TCPSegments(headers: udp.headers, size: 4, byteCount: udp.bytes.count) == nil)
        #expect(TCPSegments(headers: tcp.headers, size: 0, byteCount: tcp.bytes.count) == nil)
        let empty = TCPSegments(headers: tcp.headers, size: 4, byteCount: tcp.headerEnd)
        #expect(empty?.count == 1 && empty?.length(0) == 0)
    }
}
