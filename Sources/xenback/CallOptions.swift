// The options of every verb, and one call with them.

import ArgumentParser
import ControlProtocol
import SystemPackage

#if canImport(Glibc)
    import Glibc
#endif

/// `--socket` and `--json`.
struct CallOptions: ParsableArguments {
    @Option(help: "The daemon's control socket. (default: $XENBACK_SOCKET, else \(ControlInterface.defaultSocketPath))")
    var socket: String?

    @Flag(help: "Print the answer as JSON.")
    var json = false

    /// Calls, and prints the answer: as JSON, or as `text` says.
    func call<Verb: ControlVerb>(
        _ verb: Verb,
        timeout: Duration = .seconds(60),
        text: (Verb.Reply) -> String
    ) throws(ExitCode) {
        do throws(ControlClientError) {
            let reply = try answer(to: verb, timeout: timeout)
            Terminal.print(json ? ControlMessage.json(reply) : text(reply))
        } catch {
            throw Terminal.failure("xenback: \(error)")
        }
    }

    func answer<Verb: ControlVerb>(
        to verb: Verb,
        timeout: Duration = .seconds(60)
    ) throws(ControlClientError) -> Verb.Reply {
        var client = try ControlClient(path: path)
        return try client.call(verb, timeout: timeout)
    }

    private var path: String {
        if let socket { return socket }
        // SAFETY: no thread of this program changes the environment; the text is copied at once.
        if let set = unsafe getenv("XENBACK_SOCKET").map({ unsafe String(cString: $0) }), !set.isEmpty { return set }
        return ControlInterface.defaultSocketPath
    }
}

/// Standard output and standard error, written whole.
enum Terminal {
    static func print(_ text: String) {
        // A reader that went away (`xenback list | head -1`) is not an error.
        _ = try? FileDescriptor.standardOutput.writeAll(text.utf8)
    }

    /// Prints a reason and gives the exit status that goes with it.
    static func failure(_ text: String) -> ExitCode {
        _ = try? FileDescriptor.standardError.writeAll("\(text)\n".utf8)
        return .failure
    }
}
