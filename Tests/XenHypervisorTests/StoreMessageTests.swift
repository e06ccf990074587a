// XenStore's wire format: golden bytes, whole and one at a time, and what must be refused.

import SystemPackage
import Testing

@testable import XenHypervisor

@Suite struct StoreMessageTests {
    private let bytes: [UInt8] = [
        2, 0, 0, 0, 0, 0, 0, 0, 0x44, 0x33, 0x22, 0x11, 6, 0, 0, 0, 0x64, 0x6F, 0x6D, 0x69, 0x64, 0,
    ]
    private let message = StoreMessage(
        kind: StoreMessage.Kind.read,
        transaction: 0x1122_3344,
        payload: Array("domid\0".utf8)
    )

    @Test func encodes() { #expect(message.encoded == bytes) }

    @Test func decodesWholeAndByteByByte() throws {
        var inbox = StoreInbox()
        inbox.append(bytes + bytes)
        #expect(try inbox.next() == message)
        #expect(try inbox.next() == message)
        #expect(try inbox.next() == nil)
        for _ in 0..<3 {
            for byte in bytes.dropLast() {
                inbox.append([byte])
                #expect(try inbox.next() == nil)
            }
            inbox.append(bytes.suffix(1))
            #expect(try inbox.next() == message)
        }
    }

    @Test func refusesALengthBeyondTheProtocol() {
        var inbox = StoreInbox()
        inbox.append([15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x10, 0, 0])
        #expect(throws: Errno.protocolError) { try inbox.next() }
    }

    @Test func readsErrorsByName() {
        #expect(StoreMessage.errno(Array("ENOENT\0".utf8)) == .noSuchFileOrDirectory)
        #expect(StoreMessage.errno(Array("EAGAIN".utf8)) == .resourceTemporarilyUnavailable)
        #expect(StoreMessage.errno(Array("EWHATEVER\0".utf8)) == .invalidArgument)
    }

    @Test func cutsStrings() {
        func strings(_ text: String) -> [String] {
            StoreMessage.strings(Array(text.utf8)).map { String(decoding: $0, as: UTF8.self) }
        }
        #expect(strings("") == [])
        #expect(strings("a\0") == ["a"])
        #expect(strings("a\0b\0") == ["a", "b"])
        #expect(strings("a\0b") == ["a", "b"])
    }
}
