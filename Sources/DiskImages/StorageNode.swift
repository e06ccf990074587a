// What a disk is, whatever its names: nodes of the host's storage, and the ranges of them that it covers.

/// A file or a block device, by what identifies it.
public enum StorageNode: Hashable, Sendable {
    /// `st_dev` and `st_ino`.
    case file(fileSystem: UInt64, inode: UInt64)
    /// `st_rdev`: a device is its number, whatever node it was opened by.
    case device(UInt64)
}

/// A range of a node, in bytes.
struct DiskExtent: Hashable, Sendable {
    let node: StorageNode
    let start: UInt64
    /// The first byte after it; `.max` if unknown.
    let end: UInt64
    /// False: an unknown part of the range, as a logical volume is of its physical volume.
    let isExact: Bool

    /// Whether the two certainly share bytes. Two unknown parts are assumed to be disjoint, as volumes of one group
    /// are.
    func overlaps(_ other: DiskExtent) -> Bool {
        guard node == other.node else { return false }
        return switch (isExact, other.isExact) {
        case (true, true): start < other.end && other.start < end
        case (true, false): start <= other.start && other.end <= end
        case (false, true): other.start <= start && end <= other.end
        case (false, false): false
        }
    }
}

/// A disk's extents on all levels: its own node, and through partitions, loop devices and the device-mapper those
/// below.
struct DiskExtents: Hashable, Sendable {
    private(set) var all: [DiskExtent] = []

    /// More levels than anybody builds; ends a cycle of loop devices.
    private static let depth = 16

    init(of node: StorageNode, _ storage: some HostStorage) {
        let end: UInt64 =
            switch node {
            case .file: .max
            case .device(let number): storage.device(number)?.byteCount ?? .max
            }
        add(DiskExtent(node: node, start: 0, end: end, isExact: true), storage, depth: DiskExtents.depth)
    }

    private mutating func add(_ extent: DiskExtent, _ storage: some HostStorage, depth: Int) {
        guard depth > 0, !all.contains(extent) else { return }
        all.append(extent)
        guard case .device(let number) = extent.node, let device = storage.device(number) else { return }
        if let (whole, start) = device.partition {
            add(extent.moved(to: .device(whole), by: start), storage, depth: depth - 1)
        }
        if let (backing, offset) = device.backing {
            add(extent.moved(to: backing, by: offset), storage, depth: depth - 1)
        }
        let sizes = device.slaves.map { storage.device($0)?.byteCount }
        // As large as what lies below: another name for it (a linear table, multipath), or a transformation of all of
        // it (crypt).
        let isAlias = sizes.allSatisfy { $0 == device.byteCount }
        for (slave, size) in zip(device.slaves, sizes) {
            let below =
                isAlias
                ? extent.moved(to: .device(slave), by: 0)
                : DiskExtent(node: .device(slave), start: 0, end: size ?? .max, isExact: false)
            add(below, storage, depth: depth - 1)
        }
    }

    func overlap(_ other: DiskExtents) -> Bool {
        all.contains { extent in other.all.contains { extent.overlaps($0) } }
    }
}

extension DiskExtent {
    fileprivate func moved(to node: StorageNode, by offset: UInt64) -> DiskExtent {
        let (start, startOverflow) = start.addingReportingOverflow(offset)
        let (end, endOverflow) = end.addingReportingOverflow(offset)
        return DiskExtent(
            node: node,
            start: startOverflow ? .max : start,
            end: endOverflow ? .max : end,
            isExact: isExact
        )
    }
}
