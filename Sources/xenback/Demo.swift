// `xenback demo`: broker, workers, and guests with a disk, network cards and USB devices, on any Linux machine, killed in
// the middle.

import ArgumentParser
import ControlProtocol
import FrontendDrivers
import HostIO
import SimulatedHost
import SystemPackage

#if canImport(Glibc)
    import Glibc
#endif

struct DemoCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "demo",
        abstract: "Show a disk, network cards and USB served, and their backends killed, without Xen and without root.",
        discussion: """
            Starts a broker and a worker process as xenbackd does, and a guest's block driver that writes and reads a \
            disk image through them. In the middle the worker is killed with SIGKILL, then the broker, then the worker \
            again. Then two more guests exchange packets through a network card each, and one's worker is killed. Then a guest reads a USB stick whose worker is killed, \
            types, and listens to a microphone. \
            Every block and packet is verified. The hypervisor is simulated; the output says what that covers. \
            Exit status 0 means: no request failed and no byte was wrong.
            """
    )

    @Flag(help: "Print the figures as JSON instead of the story.")
    var json = false

    @Option(help: "Size of the disk in MiB, 1 … 1024.")
    var size = 32

    @Option(help: "Seconds of random reads and writes, 3 … 60.")
    var seconds = 5

    @Option(help: "What broker and worker write to standard error: debug, info, notice, warning, error or critical.")
    var logLevel = "critical"

    func validate() throws {
        guard (1...1024).contains(size) else { throw ValidationError("a disk of \(size) MiB is not 1 … 1024") }
        guard (3...60).contains(seconds) else { throw ValidationError("\(seconds) seconds are not 3 … 60") }
    }

    func run() throws {
        let directory: FilePath
        do {
            try ProcessSignals.begin()
            directory = try DemoStage.makeDirectory()
        } catch { throw Terminal.failure("xenback demo: \(error)") }
        let command = self
        Task.detached { Glibc.exit(await command.play(in: directory)) }
        Task.detached {
            try await Task.sleep(for: .seconds(90))
            command.giveUp(directory, "no progress; giving up")
        }
        // ^C. Broker and worker end with the machine, which is in this process.
        _ = ProcessSignals.next()
        giveUp(directory, "stopped")
    }

    /// - Returns: the exit status.
    private func play(in directory: FilePath) async -> CInt {
        let story = DemoStory(silent: json)
        story.tell(Self.introduction)
        do {
            let run = try DemoRun(story, in: directory, blocks: size * 256, seconds: seconds, logLevel: logLevel)
            let outcome = try await run.outcome()
            Terminal.print(json ? ControlMessage.json(outcome) : outcome.table)
            return outcome.isVerified ? 0 : 1
        } catch {
            _ = Terminal.failure("xenback demo: \(error)")
            removeTree(directory)
            return 1
        }
    }

    private func giveUp(_ directory: FilePath, _ reason: String) -> Never {
        _ = Terminal.failure("xenback demo: \(reason)")
        removeTree(directory)
        Glibc.exit(1)
    }

    static let introduction = """
        What is real here: the broker and the worker (processes of this program, as xenbackd runs them), the ring \
        protocol,
        the XenStore handshake, the request journal, io_uring, the image file, and SIGKILL.
        What is simulated: the hypervisor. Guest memory and grants are shared memory of this machine, event channels \
        are
        eventfds, XenStore is a tree in this process, the guests are threads with drivers written for the purpose. Instead
        of TAPs on a bridge (those need root) there are sockets of a small switch in this process, and instead of the host's
        USB devices there are a stick, a keyboard and a microphone made of software.
        So the figures say nothing about Xen's own costs.

        """
}

/// What happens, as it happens.
struct DemoStory: Sendable {
    let silent: Bool
    private let start = ContinuousClock.now

    init(silent: Bool) { self.silent = silent }

    func tell(_ text: String) {
        if !silent { Terminal.print(text + "\n") }
    }

    /// One event, with the time since the start.
    func event(_ text: String) {
        tell("\((ContinuousClock.now - start).seconds(width: 7)) s  \(text)")
    }
}

extension Duration {
    /// Seconds with three decimals, right-aligned.
    func seconds(width: Int) -> String {
        let milliseconds = components.seconds * 1000 + components.attoseconds / 1_000_000_000_000_000
        let fraction = String(milliseconds % 1000)
        let text = "\(milliseconds / 1000).\(String(repeating: "0", count: 3 - fraction.count))\(fraction)"
        return String(repeating: " ", count: max(0, width - text.count)) + text
    }

    var microseconds: Int64 { components.seconds * 1_000_000 + components.attoseconds / 1_000_000_000_000 }
}
