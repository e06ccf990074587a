// Disks that are not ours, handed to the kernel's blkback where the xen-backend bus does not probe by itself.

internal import HostIO
internal import Hypervisor
internal import Logging
internal import SystemPackage
internal import XenWire

extension Broker {
    /// The driver's file that takes a device's name (Linux, drivers/base/bus.c).
    static let bindFile: FilePath = "/sys/bus/xen-backend/drivers/vbd/bind"

    /// `vbd-7-51712`, as the xen-backend bus names it.
    static func busName(_ path: DevicePath) -> String { "\(path.kind)-\(path.domain)-\(path.index)" }

    /// Hands over each new foreign disk, once.
    func bindForeignDisks() {
        bound = bound.filter { listing.devices[$0] != nil }
        guard bindsForeignDisks else { return }
        for device in listing.devices.values where device.path.kind == .vbd && !device.isOurs && device.isNew {
            guard bound.insert(device.path).inserted else { continue }
            let (path, log) = (device.path, log(of: device.path))
            Task(executorPreference: loop) {
                do throws(Errno) {
                    // The driver probes inside write(2).
                    try await self.loop.blocking { () throws(Errno) in
                        try Files.write(Broker.busName(path), to: Broker.bindFile)
                    }
                    log.info("handed to the kernel's blkback")
                } catch {
                    log.error("the kernel's blkback does not take it: \(error)")
                }
            }
        }
    }
}
