// Calls and replies as bytes: JSON objects closed by a NUL.

internal import FoundationEssentials

/// Encodes and decodes whole messages. Encoded messages carry their closing NUL, messages to decode don't.
public enum ControlMessage {
    /// A call of `verb`, ready to be sent.
    public static func call<Verb: ControlVerb>(_ verb: Verb) -> [UInt8] {
        encode(CallEnvelope(method: Verb.method, parameters: verb))
    }

    /// The answer to a call that went well, ready to be sent.
    public static func reply(_ parameters: some Encodable) -> [UInt8] {
        encode(ReplyEnvelope(parameters: parameters, error: nil))
    }

    /// The answer to a call that failed, ready to be sent.
    public static func reply(_ error: ControlError) -> [UInt8] {
        encode(ReplyEnvelope(parameters: error.parameters, error: error.name))
    }

    /// Reads the answer to a call of `verb`.
    ///
    /// - Throws: the error the answer carries, or `.malformedMessage` if it is no answer to this call.
    public static func decodeReply<Verb: ControlVerb>(
        to verb: Verb.Type,
        from message: [UInt8]
    ) throws(ControlError) -> Verb.Reply {
        do {
            let data = Data(message)
            if let name = try JSONDecoder().decode(ReplyHead.self, from: data).error {
                let body = try JSONDecoder().decode(Body<ControlError.Parameters>.self, from: data)
                throw ControlError(name: name, parameters: body.parameters ?? ControlError.Parameters())
            }
            return try JSONDecoder().decode(FullBody<Verb.Reply>.self, from: data).parameters
        } catch let error as ControlError {
            throw error
        } catch {
            throw ControlError.malformedMessage(reason: "the answer to \(Verb.name): \(Self.explain(error).text)")
        }
    }

    /// Reads a call's parameters; a call without any is one with `{}`.
    ///
    /// - Throws: `.invalidParameter` with the parameter's name.
    static func decodeParameters<Parameters: Decodable>(
        _ type: Parameters.Type,
        from message: [UInt8]
    ) throws(ControlError) -> Parameters {
        do {
            let data = Data(message)
            if try JSONDecoder().decode(Body<NoParameters>.self, from: data).parameters == nil {
                return try JSONDecoder().decode(Parameters.self, from: Data("{}".utf8))
            }
            return try JSONDecoder().decode(FullBody<Parameters>.self, from: data).parameters
        } catch {
            throw ControlError.invalidParameter(explain(error).path)
        }
    }

    static func decodeHead(of message: [UInt8]) throws(ControlError) -> CallHead {
        do {
            return try JSONDecoder().decode(CallHead.self, from: Data(message))
        } catch {
            throw ControlError.malformedMessage(reason: explain(error).text)
        }
    }

    /// Indented JSON with a newline at its end, for people and scripts.
    public static func json(_ value: some Encodable) -> String {
        String(decoding: encode(value, .prettyPrinted).dropLast(), as: UTF8.self) + "\n"
    }

    private static func encode(_ value: some Encodable, _ format: JSONEncoder.OutputFormatting = []) -> [UInt8] {
        let encoder = JSONEncoder()
        encoder.outputFormatting = format.union([.withoutEscapingSlashes, .sortedKeys])
        // Only NaN and infinity cannot be encoded, and no message has them.
        guard let data = try? encoder.encode(value) else { preconditionFailure("a message that cannot be encoded") }
        return Array(data) + [0]
    }

    /// What is wrong with a message, and where: `path` is the parameter's name.
    private static func explain(_ error: any Error) -> (path: String, text: String) {
        guard let error = error as? DecodingError else { return ("parameters", "not JSON") }
        let (path, complaint) =
            switch error {
            case .keyNotFound(let key, let context): (context.codingPath + [key], "is missing")
            case .typeMismatch(_, let context): (context.codingPath, "has the wrong type")
            case .valueNotFound(_, let context): (context.codingPath, "is null")
            case .dataCorrupted(let context): (context.codingPath, "has a bad value")
            @unknown default: ([], "")
            }
        if path.isEmpty {
            if case .dataCorrupted = error { return ("parameters", "not JSON") }
            return ("parameters", "not a JSON object")
        }
        var names = path.map(\.stringValue)
        if names.count > 1, names[0] == "parameters" { names.removeFirst() }
        let name = names.joined(separator: ".")
        return (name, "'\(name)' \(complaint)")
    }
}

/// The part of a call that names the method.
struct CallHead: Decodable, Equatable {
    var method: String
    var oneway: Bool?
    var more: Bool?
    var upgrade: Bool?
}

private struct ReplyHead: Decodable { var error: String? }
private struct Body<Parameters: Decodable>: Decodable { var parameters: Parameters? }
private struct FullBody<Parameters: Decodable>: Decodable { var parameters: Parameters }

private struct CallEnvelope<Parameters: Encodable>: Encodable {
    var method: String
    var parameters: Parameters
}

private struct ReplyEnvelope<Parameters: Encodable>: Encodable {
    var parameters: Parameters
    var error: String?
}
