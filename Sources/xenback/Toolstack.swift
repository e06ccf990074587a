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
        let child: ChildProcess
        do throws(Errno) { child = try ChildProcess(spawning: [program] + words) } catch {
            throw Terminal.failure("xenback: \(program): \(error)")
        }
        var event = pollfd(fd: child.descriptor, events: Int16(POLLIN), revents: 0)
        while true {
            if let end = child.takeEnd() {
                switch end {
                case .exited(0): return
                case .exited(let status): throw ExitCode(status)
                default: throw Terminal.failure("xenback: xl \(end)")
                }
            }
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
