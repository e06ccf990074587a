// Looking for a port's device among the host's, off the loops.

internal import HostIO
internal import HostUSB

/// What is looked for, and on whose behalf.
struct USBSearch: Sendable {
    let rule: USBDeviceRule
    /// The device to try first: the one a predecessor had.
    let first: UInt64?
    /// Devices that are not tried.
    let unfit: Set<UInt64>
    let owner: String

    /// Opens the first device that fits the rule and can be had.
    func run(_ host: any USBHost, _ loop: EventLoop) -> Result<any OpenUSBDevice, HostFailure> {
        do throws(HostFailure) {
            let all = try host.devices()
            if let address = rule.address, let hub = all.first(where: { $0.address == address && $0.isHub }) {
                return .failure(
                    HostFailure(.denied, "\(hub) is a hub: what is plugged in below it has its own address")
                )
            }
            var candidates = all.filter { rule.matches($0) }.map { (USBPortMemory.identity(of: $0), $0) }
            guard !candidates.isEmpty else { return .failure(HostFailure(.notFound, "no device matches \(rule)")) }
            if let first, let place = candidates.firstIndex(where: { $0.0 == first }) { candidates.swapAt(0, place) }
            var failure: HostFailure?
            for (identity, facts) in candidates where !unfit.contains(identity) {
                do throws(HostFailure) {
                    return .success(try host.open(facts, owner: owner, on: loop))
                } catch {
                    failure = failure ?? error
                }
            }
            return .failure(failure ?? HostFailure(.invalid, "no device that matches \(rule) can be in this port"))
        } catch {
            return .failure(error)
        }
    }
}
