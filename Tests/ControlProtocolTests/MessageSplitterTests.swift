// Streams cut into messages: whole, one byte at a time, too long.

import Testing

@testable import ControlProtocol

@Suite struct MessageSplitterTests {
    private static func messages(_ splitter: inout MessageSplitter) -> [String] {
        var found: [String] = []
        while let message = splitter.next() { found.append(String(decoding: message, as: UTF8.self)) }
        return found
    }

    @Test func cutsWhatCameTogether() throws {
        var splitter = MessageSplitter(limit: 100)
        try splitter.append(Array("one\0two\0\0thr".utf8))
        #expect(Self.messages(&splitter) == ["one", "two", ""])
        try splitter.append(Array("ee\0".utf8))
        #expect(Self.messages(&splitter) == ["three"])
        #expect(splitter.waiting == 0)
    }

    @Test func joinsWhatCameByteByByte() throws {
        var splitter = MessageSplitter(limit: 16)
        var found: [String] = []
        for byte in Array("{\"a\":1}\0{}\0last\0".utf8) {
            try splitter.append([byte])
            found += Self.messages(&splitter)
        }
        #expect(found == ["{\"a\":1}", "{}", "last"])
    }

    @Test func refusesMoreThanTheLimit() throws {
        var splitter = MessageSplitter(limit: 8)
        try splitter.append(Array(repeating: 0x61, count: 8))
        #expect(splitter.next() == nil)
        #expect(throws: MessageSplitter.MessageTooLong(limit: 8)) { try splitter.append([0]) }
        #expect(splitter.waiting == 8)
    }

    @Test func takenMessagesGiveTheirRoomBack() throws {
        var splitter = MessageSplitter(limit: 8)
        for round in 0..<1000 {
            try splitter.append(Array("1234567\0".utf8))
            #expect(Self.messages(&splitter) == ["1234567"], "round \(round)")
        }
    }
}
