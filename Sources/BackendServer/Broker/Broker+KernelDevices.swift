// Devices that are not ours, given to the kernel's drivers where the xen-backend bus does not probe by itself.

internal import BackendCore
internal import HostIO
internal import Hypervisor
internal import Logging
internal import SystemPackage
internal import XenWire

extension Broker {
    /// Gives each new device of the kernel's kinds that is not ours to the kernel, once.
    func giveToKernel() {
        given = given.filter { listing.devices[$0] != nil }
        for device in listing.devices.values where kernelKinds.contains(device.path.kind) && !device.isOurs {
            guard device.isNew, given.insert(device.path).inserted else { continue }
            let (path, log, kernel) = (device.path, log(of: device.path), setting.kernelBackends)
            Task(executorPreference: loop) {
                do throws(Errno) {
                    // The driver probes inside write(2).
                    try await self.loop.blocking { () throws(Errno) in
                        if !kernel.has(path) { try kernel.give(path) }
                    }
                    log.info("given to the kernel's driver")
                } catch {
                    let driver = KernelBackends.driver(of: path.kind) ?? "\(path.kind)"
                    log.error("the kernel's driver '\(driver)' does not take it: \(error); is its module loaded?")
                }
            }
        }
    }
}
