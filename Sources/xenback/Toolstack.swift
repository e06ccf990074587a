// xl, run for what only the toolstack may do.

import ArgumentParser
import HostIO
import SystemPackage

#if canImport(Glibc)
    import Glibc
#endif

/// xl is of the same release as the hypervisor, which the hypercalls that give a guest a card's ports, memory and
/// interrupts ask for.
enum Toolstack {
    /// Runs xl with these words, with our output and errors, and waits for it.
    /// - Throws: its exit status if that is not 0.
    static func run(_ words: [String]) throws(ExitCode) {
        guard let program = find("xl") else {
            throw Terminal.failure("xenback: there is no xl in $PATH; install Xen's toolstack (xen-utils)")
        }
        let end: ProcessEnd
        do throws(Errno) { end = try self.end(of: [program] + words) } catch {
            throw Terminal.failure("xenback: \(program): \(error)")
        }
        switch end {
        case .exited(0): return
        case .exited(let status): throw ExitCode(status)
        default: throw Terminal.failure("xenback: xl \(end)")
        }
    }

    /// Runs xl with these words, and waits for it. What it says is dropped, and whether it succeeds is nothing to the caller.
    static func attempt(_ words: [String]) {
        guard let program = find("xl") else { return }
        _ = try? end(of: ["/bin/sh", "-c", #"exec "$0" "$@" >/dev/null 2>&1"#, program] + words)
    }

    private static func end(of command: [String]) throws(Errno) -> ProcessEnd {
        let child = try ChildProcess(spawning: command)
        var event = pollfd(fd: child.descriptor, events: Int16(POLLIN), revents: 0)
        while true {
            if let end = child.takeEnd() { return end }
            // SAFETY: one structure, a local, for the call.
            _ = unsafe poll(&event, 1, -1)
        }
    }

    private static func find(_ name: String) -> String? {
        // SAFETY: no thread of this program changes the environment; the text is copied at once.
        let path = unsafe getenv("PATH").map { unsafe String(cString: $0) } ?? "/usr/sbin:/usr/bin:/usr/local/sbin"
        return path.split(separator: ":").map { "\($0)/\(name)" }.first { unsafe access($0, X_OK) == 0 }
    }
}
