// Which code answers which verb.

/// The daemon's table of verbs.
///
/// ```swift
/// var dispatch = ControlDispatch(product: "xenbackd", version: "1.0", process: 4711)
/// dispatch.on(List.self) { _ in List.Reply(devices: await broker.devices()) }
/// …
/// let bytes = await dispatch.answer(call)      // nil: the caller wants no answer
/// ```
public struct ControlDispatch: Sendable {
    private var answers: [String: any Answer] = [:]

    /// A table with the verbs that need no daemon: org.varlink.service, `Ping`, `GetVersion`.
    ///
    /// - Parameters:
    ///   - product: `"xenbackd"`, or what tells a worker from the broker.
    ///   - process: this process's id.
    public init(product: String, version: String, process: Int) {
        on(GetInfo.self) { _ in
            GetInfo.Reply(
                vendor: "xenback",
                product: product,
                version: version,
                url: "",
                interfaces: [ControlInterface.serviceName, ControlInterface.name]
            )
        }
        on(GetInterfaceDescription.self) { call throws(ControlError) in
            guard let text = GetInterfaceDescription.texts[call.interface] else {
                throw ControlError.interfaceNotFound(call.interface)
            }
            return GetInterfaceDescription.Reply(description: text)
        }
        on(Ping.self) { _ in NoParameters() }
        on(GetVersion.self) { _ in GetVersion.Reply(version: version, process: process) }
    }

    /// Answers `verb` with what `body` returns, or with the error it throws.
    public mutating func on<Verb: ControlVerb>(
        _ verb: Verb.Type,
        _ body: @escaping @Sendable (Verb) async throws(ControlError) -> Verb.Reply
    ) {
        answers[Verb.method] = VerbAnswer(body: body)
    }

    /// The names of all verbs that have an answer.
    public var methods: [String] { answers.keys.sorted() }

    /// Performs a call.
    ///
    /// - Returns: the message to send, its NUL included; nil if the caller wants none.
    public func answer(_ call: ControlCall) async -> [UInt8]? {
        let reply: [UInt8]
        do throws(ControlError) {
            reply = try await perform(call)
        } catch {
            reply = ControlMessage.reply(error)
        }
        return call.isOneway ? nil : reply
    }

    private func perform(_ call: ControlCall) async throws(ControlError) -> [UInt8] {
        guard !call.wantsUpgrade else { throw .invalidParameter("upgrade") }
        guard let answer = answers[call.method] else {
            let interface = call.method.lastIndex(of: ".").map { String(call.method[..<$0]) } ?? call.method
            guard GetInterfaceDescription.texts[interface] != nil else { throw .interfaceNotFound(interface) }
            throw .methodNotFound(call.method)
        }
        return try await answer.reply(to: call)
    }
}

private protocol Answer: Sendable {
    func reply(to call: ControlCall) async throws(ControlError) -> [UInt8]
}

/// A generic type rather than a closure around `body`: Swift 6.3 crashes compiling the latter.
private struct VerbAnswer<Verb: ControlVerb>: Answer {
    let body: @Sendable (Verb) async throws(ControlError) -> Verb.Reply

    func reply(to call: ControlCall) async throws(ControlError) -> [UInt8] {
        let parameters = try ControlMessage.decodeParameters(Verb.self, from: call.message)
        return ControlMessage.reply(try await body(parameters))
    }
}
