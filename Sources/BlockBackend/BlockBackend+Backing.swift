// The image: what it means for requests and for the toolstack.

internal import BackendCore
internal import DiskImages
internal import HostIO
internal import Hypervisor
internal import XenWire

extension BlockBackend {
    /// What requests are validated against now.
    var currentLimits: BlockLimits { limits(of: medium) }

    func limits(of medium: BlockMedium?) -> BlockLimits {
        guard let facts = medium?.image.facts else { return BlockLimits(capacity: 0, isReadOnly: true) }
        var features: BlockLimits.Features = [.flush, .barrier]
        if facts.canDiscard, keys?.allowsDiscard ?? false, !isReadOnly {
            features.insert(.discard)
            if facts.canDiscardSecurely { features.insert(.secureDiscard) }
        }
        return BlockLimits(
            capacity: facts.sectorCount,
            isReadOnly: isReadOnly,
            features: features,
            maxIndirectSegments: BlockCapabilities.maxIndirectSegments,
            logicalBlockSize: facts.logicalBlockSize
        )
    }

    var isReadOnly: Bool { keys?.flags.contains(.readOnly) ?? true }

    func openBacking(isTakeover: Bool) async throws(BackendFailure) {
        if let fault = keys?.targetFault { throw BackendFailure(.invalid, "\(fault)") }
        guard let target = keys?.target else {
            if keys?.isCDROM ?? false { return }
            throw BackendFailure(.invalid, "no image: the key 'params' is empty")
        }
        isOpening = true
        defer { isOpening = false }
        if !isTakeover { try await refuseKernelsBackend() }
        medium = try await open(target, isTakeover: isTakeover)
    }

    /// Two backends on one ring destroy the disk, and the kernel's xen-blkback connects as soon as it reads
    /// `physical-device`.
    private func refuseKernelsBackend() async throws(BackendFailure) {
        guard path.kind == .vbd else { return }
        let path = path
        guard await environment.controlLoop.blocking({ KernelBackends().has(path) }) else { return }
        throw BackendFailure(
            .busy,
            "\(path): the kernel's xen-blkback has taken this disk; rmmod xen-blkback, or keep it from probing by itself"
                + " (echo 0 > /sys/bus/xen-backend/drivers_autoprobe), or use backendtype=tap"
        )
    }

    func closeBacking() { medium = nil }

    /// XenStore describes the image already: it was claimed before it was opened.
    var announcement: [(String, String)]? { medium != nil || keys?.isCDROM ?? false ? [] : nil }

    /// Writes what the disk is to XenStore, as the toolstack's script does (block-common.sh, `write_dev`): for others
    /// that check whether the image is free, for libxl, which passes the path to the device model, and for people.
    func claim(_ site: DiskSite?) async {
        let path = path
        // libxl takes the path of a `vbd3` for the NBD socket of a tapdisk (libxl_disk.c,
        // `libxl__device_disk_find_local_path`), and a device model that cannot open it ends the guest.
        let hidesPath = path.kind == .vbd3 && guest?.isFullyVirtual ?? false
        let values = [
            (BlockKeys.physicalDevice, site?.physicalDevice),
            (BlockKeys.physicalDevicePath, hidesPath ? nil : site?.path),
        ]
        await persist("claim the image", isTransaction: true) { (store) throws(HypervisorFailure) in
            guard try store.read(path.key(BusKeys.state)) != nil else { return }
            for (name, value) in values {
                if let value { try store.write(path.key(name), value) } else { try store.remove(path.key(name)) }
            }
        }
    }
}
