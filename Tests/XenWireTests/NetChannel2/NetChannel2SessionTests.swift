// The protocol of one end: limits, accounting, and what closes a link.

import Testing
import XenWire

private let limits = NetChannel2Limits(maxPackets: 4, maxFragments: 3, offloads: [.checksum])

/// An end, for what `#expect` cannot do with a value that cannot be copied.
private final class End {
    var session: NetChannel2Session

    init(capacity: Int, trustsPeer: Bool = false) {
        session = NetChannel2Session(capacity: capacity, trustsPeer: trustsPeer)
    }

    func receive(_ message: TestBytes) throws -> NetChannel2Verdict { try session.receive(message) }
    func violation(_ message: TestBytes) -> NetChannel2Violation? {
        do throws(NetChannel2Violation) {
            _ = try session.receive(message)
            return nil
        } catch {
            return error
        }
    }
    func finish(id: UInt32) -> WireWords { session.finish(id: id) }
    func begin(now: UInt64) -> UInt32? { session.begin(now: now) }
    var own: NetChannel2Limits { session.own }
    var peer: NetChannel2Limits { session.peer }
    var owed: UInt32 { session.owed }
    var oldest: UInt64? { session.oldest }
    var outstanding: Int { session.outstanding }
    var mayBegin: Bool { session.mayBegin }
    var isOpen: Bool { session.isOpen }
}

/// An end that has announced `limits`, and was allowed `peer`.
private func opened(
    _ own: NetChannel2Limits = limits,
    peer: UInt32? = 8,
    capacity: Int = 8,
    trustsPeer: Bool = false
) throws -> End {
    let end = End(capacity: capacity, trustsPeer: trustsPeer)
    _ = end.session.open(own)
    if let peer { _ = try end.receive(bytes(NetChannel2Message.maxPackets(peer))) }
    return end
}

private func bytes(_ words: WireWords) -> TestBytes { TestBytes(NetGoldenBytes.bytes(of: words, 8)) }

private func packet(
    _ type: NetChannel2PacketType = .receiverMap,
    id: UInt32 = 1,
    fragments: Int = 1,
    blank: Bool = false,
    segmentSize: UInt16 = 0
) -> TestBytes {
    let packet = NetChannel2Packet(
        id: id,
        type: type,
        flags: blank ? .checksumBlank : [],
        segmentSize: segmentSize,
        prefixSize: 60,
        fragmentCount: fragments,
        byteCount: 0
    )
    let bytes = TestBytes(count: packet.messageSize)
    packet.encode(into: bytes)
    for index in 0..<fragments {
        NetChannel2Packet.encode(
            NetChannel2Fragment(size: 100, offset: 0, reference: GrantReference(5)),
            at: index,
            into: bytes
        )
    }
    return bytes
}

@Suite struct NetChannel2SessionTests {
    @Test func theOpeningBurst() {
        let session = End(capacity: 1)
        let (packets, offloads, fragments) = session.session.open(limits)
        #expect(bytes(packets).bytes == TestBytes("0100 0800 04000000").bytes)
        #expect(bytes(offloads).bytes == TestBytes("0400 0800 01000000").bytes)
        #expect(bytes(fragments).bytes == TestBytes("0500 0800 03000000").bytes)
        #expect(session.own == limits)
    }

    @Test func nothingGoesBeforeTheLimit() throws {
        let closed = End(capacity: 2)
        #expect(closed.violation(packet()) == .packetBeforeLimit)
        #expect(closed.violation(packet(.small, fragments: 0)) == .packetBeforeLimit)
        let silent = try opened(peer: nil)
        #expect(!silent.mayBegin && !silent.isOpen)
        #expect(silent.begin(now: 0) == nil)
        // 0 is an announcement as well: nothing may ever be sent.
        _ = try silent.receive(bytes(NetChannel2Message.maxPackets(0)))
        #expect(!silent.mayBegin && !silent.isOpen)
        #expect(silent.violation(bytes(NetChannel2Message.maxPackets(1))) == .limitRepeated)
    }

    @Test func packetsAreCountedUntilTheyAreFinished() throws {
        let session = try opened()
        for id in 1...4 as ClosedRange<UInt32> {
            guard case .packet(let packet) = try session.receive(packet(id: id)) else {
                Issue.record("no packet")
                return
            }
            #expect(packet.id == id)
        }
        // A small one never counts.
        guard case .packet = try session.receive(packet(.small, fragments: 0)) else {
            Issue.record("no packet")
            return
        }
        #expect(session.violation(packet(id: 5)) == .tooManyPackets(limit: 4))
        // In any order, and by the number it came with, whatever that is.
        #expect(bytes(session.finish(id: 3)).bytes == TestBytes("0300 0800 03000000").bytes)
        #expect(session.owed == 3)
        #expect(session.violation(packet(id: 1)) == nil)
        #expect(session.violation(packet(id: 1)) == .tooManyPackets(limit: 4))
    }

    @Test func fragmentsBeyondTheAnnounced() throws {
        let session = try opened()
        #expect(session.violation(packet(fragments: 3)) == nil)
        #expect(session.violation(packet(fragments: 4)) == .tooManyFragments(4, limit: 3))
        // Packets under way do not know yet that there may be fewer.
        _ = session.session.change(maxFragments: 1)
        #expect(session.violation(packet(fragments: 3)) == nil)
        _ = session.session.change(maxFragments: 4)
        #expect(session.violation(packet(fragments: 4)) == nil)
    }

    @Test func offloadsThatWereNotAnnounced() throws {
        let session = try opened()
        #expect(session.violation(packet(blank: true)) == nil)
        #expect(session.violation(packet(segmentSize: 1448)) == .offloadNotAnnounced)
        // Taken back: what is under way is dropped, and finished.
        _ = session.session.change([])
        guard case .refused(let refused) = try session.receive(packet(id: 9, blank: true)) else {
            Issue.record("not refused")
            return
        }
        #expect(refused.id == 9)
        _ = session.session.change([.checksum, .segmentationV4])
        guard case .packet = try session.receive(packet(blank: true, segmentSize: 1448)) else {
            Issue.record("refused")
            return
        }
    }

    @Test func theOthersLimits() throws {
        let session = try opened(peer: 2)
        _ = try session.receive(bytes(NetChannel2Message.offloads([.checksum, .segmentationV4])))
        _ = try session.receive(bytes(NetChannel2Message.maxFragments(17)))
        #expect(
            session.peer == NetChannel2Limits(maxPackets: 2, maxFragments: 17, offloads: [.checksum, .segmentationV4])
        )
        _ = try session.receive(bytes(NetChannel2Message.offloads([])))
        #expect(session.peer.offloads == [])
        #expect(session.violation(bytes(NetChannel2Message.maxFragments(0))) == .noFragments)
    }

    @Test func ourOwnPacketsAreFinishedOnceEach() throws {
        let session = try opened(peer: 2)
        let (first, second) = (session.begin(now: 10), session.begin(now: 20))
        #expect(session.begin(now: 30) == nil)
        guard let first, let second else {
            Issue.record("not begun")
            return
        }
        #expect(session.oldest == 10)
        let verdict = try session.receive(bytes(NetChannel2Message.finish(id: first)))
        #expect(verdict == .finished(slot: NetChannel2Session.slot(of: first)))
        #expect(session.violation(bytes(NetChannel2Message.finish(id: first))) == .unknownFinish(id: first))
        // The slot is another packet's now; the old number is still nobody's.
        let third = session.begin(now: 40)
        #expect(third.map(NetChannel2Session.slot) == NetChannel2Session.slot(of: first) && third != first)
        #expect(session.violation(bytes(NetChannel2Message.finish(id: first))) == .unknownFinish(id: first))
        for foreign in [0x400 | second, 7, 1023, UInt32.max] where foreign != second && foreign != third {
            #expect(session.violation(bytes(NetChannel2Message.finish(id: foreign))) == .unknownFinish(id: foreign))
        }
        #expect(session.outstanding == 2)
    }

    /// More than we have memory for is as good as what we have.
    @Test func aLimitBeyondOurTable() throws {
        let session = try opened(peer: UInt32.max, capacity: 8)
        var begun = 0
        while session.begin(now: 0) != nil { begun += 1 }
        #expect(begun == 8)
    }

    @Test(arguments: [false, true])
    func bypasses(_ isTrusted: Bool) throws {
        let session = try opened(trustsPeer: isTrusted)
        let setups = [("09", NetChannel2Bypass.frontendReady(port: -1).answer), ("0A", nil)]
        for (type, answer) in setups {
            let message = TestBytes(NetChannel2Samples.bypassBytes(type: type, port: "2A000000"))
            if isTrusted {
                #expect(try session.receive(message) == answer.map { .answer($0) } ?? .nothing)
            } else {
                #expect(session.violation(message) == .bypassFromUntrusted)
            }
        }
        for (text, answer) in [
            ("0D00 0800 09000000", NetChannel2Bypass.disabled(handle: 9)),
            ("0F00 0800 09000000", .detached(handle: 9)),
        ] {
            if isTrusted {
                #expect(try session.receive(TestBytes(text)) == answer.answer.map { .answer($0) })
            } else {
                #expect(session.violation(TestBytes(text)) == .bypassFromUntrusted)
            }
        }
        for type in ["0B", "0C", "0E", "10"] {
            #expect(session.violation(TestBytes("\(type)00 0800 09000000")) == .bypassUnasked)
        }
        #expect(try session.receive(TestBytes("1100 1000 00163E010203 0000 00000000")) == .nothing)
    }

    /// An end of another version is borne with, but not for ever.
    @Test func unknownMessages() throws {
        let session = try opened()
        let unknown = TestBytes("0700 0800 00000000")
        for _ in 0..<NetChannel2Session.maxUnknown { #expect(try session.receive(unknown) == .nothing) }
        #expect(session.violation(unknown) == .tooManyUnknown(NetChannel2MessageType(rawValue: 7)))
    }

    @Test func aMessageThatIsNone() throws {
        let session = try opened()
        let bytes = TestBytes(NetChannel2Samples.smallBytes)
        bytes.set8(2, at: 8)
        #expect(session.violation(bytes) == .message(.packetType(2)))
    }
}
