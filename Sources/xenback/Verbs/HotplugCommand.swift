// xenback hotplug block add|remove XENBUS_PATH, for /etc/xen/scripts/block-xenback

import ArgumentParser
import ControlProtocol
import XenWire

#if canImport(Glibc)
    import Glibc
#endif

struct HotplugCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hotplug",
        abstract: "What the toolstack's hotplug scripts call.",
        shouldDisplay: false
    )

    enum Kind: String, ExpressibleByArgument { case block }

    @Argument var kind: Kind
    @Argument(help: "add or remove", transform: HotplugCommand.event) var event: HotplugEvent
    @Argument(help: "The script's XENBUS_PATH: backend/vbd3/7/51712.") var path: String
    @Option(help: "Seconds to wait for the device.") var timeout = 30
    @OptionGroup var options: CallOptions

    func validate() throws {
        guard (1...3600).contains(timeout) else { throw ValidationError("--timeout is 1 to 3600 seconds") }
    }

    func run() throws {
        // Standard error has only the reason: the script passes it on to the person who typed `xl create`.
        let deadline = ContinuousClock.now + .seconds(timeout)
        let patience = ContinuousClock.now + min(.seconds(timeout), HotplugCommand.restartTime)
        while true {
            do throws(ControlClientError) {
                let left = max(ContinuousClock.now.duration(to: deadline), .milliseconds(1))
                _ = try options.answer(to: Hotplug(path: path, event: event), timeout: left)
                return
            } catch {
                switch error {
                case .notRunning, .connectionLost:
                    guard ContinuousClock.now < patience else { fallthrough }
                    usleep(100_000)
                default: throw Terminal.failure(error.description)
                }
            }
        }
    }

    /// A broker that is being restarted is back within this time; asking again does no harm.
    private static let restartTime: Duration = .seconds(5)

    private static func event(_ text: String) throws -> HotplugEvent {
        guard let event = HotplugEvent(rawValue: text) else { throw ValidationError("add or remove, not '\(text)'") }
        return event
    }
}
