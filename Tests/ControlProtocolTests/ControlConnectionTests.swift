// The server's end of a connection: good calls, bad bytes, and what the answers say.

import Testing

@testable import ControlProtocol

@Suite struct ControlConnectionTests {
    static let dispatch: ControlDispatch = {
        var dispatch = ControlDispatch(product: "test", version: "1.2.3", process: 42)
        dispatch.on(List.self) { _ in List.Reply(devices: []) }
        dispatch.on(BlockDetach.self) { call throws(ControlError) in
            guard call.domain == "7" else { throw ControlError.noSuchDomain(call.domain) }
            return NoParameters()
        }
        dispatch.on(Hotplug.self) { call throws(ControlError) in
            throw ControlError.deviceFailed(reason: "\(call.event) \(call.path): \"no\"\n such file")
        }
        return dispatch
    }()

    /// Everything a connection answers to `bytes`, fed in pieces of `size`; "close" when it closes.
    static func transcript(_ bytes: [UInt8], size: Int, limit: Int = 4096) async -> [String] {
        var connection = ControlConnection(messageLimit: limit)
        var answers: [String] = []
        var rest = bytes[...]
        while !rest.isEmpty {
            connection.receive(rest.prefix(size))
            rest = rest.dropFirst(size)
            while let step = connection.next() {
                switch step {
                case .answer(let call):
                    guard let reply = await dispatch.answer(call) else { continue }
                    #expect(reply.last == 0)
                    answers.append(String(decoding: reply.dropLast(), as: UTF8.self))
                case .close(let reply):
                    answers.append(String(decoding: reply.dropLast(), as: UTF8.self))
                    answers.append("close")
                }
            }
        }
        return answers
    }

    @Test(arguments: [
        (#"{"method":"org.xenback.control.Ping"}"#, #"{"parameters":{}}"#),
        (#"{"method":"org.xenback.control.Ping","parameters":{}}"#, #"{"parameters":{}}"#),
        (#"{"method":"org.xenback.control.Ping","parameters":null,"more":true}"#, #"{"parameters":{}}"#),
        (#"{"method":"org.xenback.control.List"}"#, #"{"parameters":{"devices":[]}}"#),
        (
            #"{"method":"org.xenback.control.GetVersion","parameters":{"later":1}}"#,
            #"{"parameters":{"interface":2,"process":42,"version":"1.2.3"}}"#
        ),
        (
            #"{"method":"org.xenback.control.BlockDetach","parameters":{"domain":"7","device":"xvda"}}"#,
            #"{"parameters":{}}"#
        ),
        (
            #"{"method":"org.xenback.control.BlockDetach","parameters":{"domain":"8","device":"xvda"}}"#,
            #"{"error":"org.xenback.control.NoSuchDomain","parameters":{"domain":"8"}}"#
        ),
        (
            #"{"method":"org.xenback.control.Hotplug","parameters":{"path":"backend/vbd/1/2","event":"add"}}"#,
            #"{"error":"org.xenback.control.DeviceFailed","parameters":"#
                + #"{"reason":"add backend/vbd/1/2: \"no\"\n such file"}}"#
        ),
        // A parameter that is missing, of the wrong type, of no such value, null.
        (
            #"{"method":"org.xenback.control.BlockDetach","parameters":{"domain":"7"}}"#,
            #"{"error":"org.varlink.service.InvalidParameter","parameters":{"parameter":"device"}}"#
        ),
        (
            #"{"method":"org.xenback.control.BlockDetach"}"#,
            #"{"error":"org.varlink.service.InvalidParameter","parameters":{"parameter":"domain"}}"#
        ),
        (
            #"{"method":"org.xenback.control.BlockDetach","parameters":{"domain":7,"device":"xvda"}}"#,
            #"{"error":"org.varlink.service.InvalidParameter","parameters":{"parameter":"domain"}}"#
        ),
        (
            #"{"method":"org.xenback.control.BlockDetach","parameters":{"domain":null,"device":"xvda"}}"#,
            #"{"error":"org.varlink.service.InvalidParameter","parameters":{"parameter":"domain"}}"#
        ),
        (
            #"{"method":"org.xenback.control.BlockDetach","parameters":[1,2]}"#,
            #"{"error":"org.varlink.service.InvalidParameter","parameters":{"parameter":"parameters"}}"#
        ),
        (
            #"{"method":"org.xenback.control.Hotplug","parameters":{"path":"x","event":"online"}}"#,
            #"{"error":"org.varlink.service.InvalidParameter","parameters":{"parameter":"event"}}"#
        ),
        (
            #"{"method":"org.xenback.control.Ping","upgrade":true}"#,
            #"{"error":"org.varlink.service.InvalidParameter","parameters":{"parameter":"upgrade"}}"#
        ),
        // Names that are not there.
        (
            #"{"method":"org.xenback.control.Explode"}"#,
            #"{"error":"org.varlink.service.MethodNotFound","parameters":{"method":"org.xenback.control.Explode"}}"#
        ),
        (
            #"{"method":"com.example.Ping"}"#,
            #"{"error":"org.varlink.service.InterfaceNotFound","parameters":{"interface":"com.example"}}"#
        ),
        (
            #"{"method":""}"#,
            #"{"error":"org.varlink.service.InterfaceNotFound","parameters":{"interface":""}}"#
        ),
    ])
    func answers(_ call: String, _ expected: String) async {
        let bytes = Array(call.utf8) + [0]
        #expect(await Self.transcript(bytes, size: bytes.count) == [expected])
        #expect(await Self.transcript(bytes, size: 1) == [expected])
    }

    @Test(arguments: [
        ("", "not JSON"), ("{", "not JSON"), ("null", "not a JSON object"), ("[]", "not a JSON object"),
        ("7", "not a JSON object"),
        ("{}", "'method' is missing"), (#"{"method":7}"#, "'method' has the wrong type"),
        (#"{"method":"a","oneway":"yes"}"#, "'oneway' has the wrong type"),
        ("GET / HTTP/1.1\r\n\r\n", "not JSON"), (#"{"method":"x"} trailing"#, "not JSON"),
    ])
    func closesOnWhatIsNoCall(_ message: String, _ reason: String) async {
        // The call behind the bad message is not performed any more.
        let bytes = Array(message.utf8) + [0] + ControlMessage.call(Ping())
        for size in [1, bytes.count] {
            let answers = await Self.transcript(bytes, size: size)
            #expect(answers.count == 2)
            #expect(answers.last == "close")
            #expect(answers[0].contains("MalformedMessage") && answers[0].contains(reason), "\(answers[0])")
        }
    }

    @Test func closesOnBytesThatAreNoText() async {
        let answers = await Self.transcript([0x7B, 0x22, 0xFF, 0xC0, 0x22, 0x7D, 0], size: 7)
        #expect(answers.last == "close")
    }

    @Test func closesOnEndlessMessages() async {
        let endless = [UInt8](repeating: 0x20, count: 5000)
        for size in [1, 17, 5000] {
            let answers = await Self.transcript(endless, size: size)
            #expect(answers.count == 2 && answers[0].contains("more than 4096 bytes"))
        }
    }

    @Test func survivesDeepNesting() async {
        let deep = #"{"method":"org.xenback.control.Ping","parameters":"# + String(repeating: "[", count: 30000)
        let answers = await Self.transcript(Array(deep.utf8) + [0], size: 16384, limit: 65536)
        #expect(answers.last == "close")
        let closed =
            #"{"method":"org.xenback.control.List","parameters":{"x":"# + String(repeating: "[", count: 30000)
            + String(repeating: "]", count: 30000) + "}}"
        let answered = await Self.transcript(Array(closed.utf8) + [0], size: 16384, limit: 65536)
        #expect(answered.count >= 1)
    }

    @Test func pipelinedCallsAreAnsweredInOrder() async {
        let calls = ControlMessage.call(Ping()) + ControlMessage.call(GetVersion()) + ControlMessage.call(List())
        let expected = [
            #"{"parameters":{}}"#, #"{"parameters":{"interface":2,"process":42,"version":"1.2.3"}}"#,
            #"{"parameters":{"devices":[]}}"#,
        ]
        for size in 1...calls.count { #expect(await Self.transcript(calls, size: size) == expected) }
    }

    @Test func onewayCallsHaveNoAnswer() async {
        let call = Array(#"{"method":"org.xenback.control.Nope","oneway":true}"#.utf8) + [0]
        #expect(await Self.transcript(call + ControlMessage.call(Ping()), size: 9) == [#"{"parameters":{}}"#])
    }

    /// Every prefix, and every single-byte change, of a good message: an answer or a closed connection, never a trap.
    @Test func noByteTraps() async {
        let good = ControlMessage.call(BlockDetach(domain: "7", device: "xvda", force: true))
        for cut in 0..<(good.count - 1) {
            let answers = await Self.transcript(Array(good.prefix(cut)) + [0], size: 64)
            #expect(answers.last == "close")
        }
        var generator = SystemRandomNumberGenerator()
        for index in good.indices {
            for byte in [0, 0x22, 0x5C, 0x7B, 0x7D, 0x80, 0xFF, UInt8.random(in: 0...255, using: &generator)] {
                var bad = good
                bad[index] = byte
                let answers = await Self.transcript(bad + [0], size: 64)
                #expect(!answers.isEmpty)
            }
        }
    }
}
