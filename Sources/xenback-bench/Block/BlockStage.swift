// An image, a disk of ours on it, and the guest's raw driver.

internal import BlockBackend
internal import FrontendDrivers
internal import Glibc
internal import HostIO
internal import SimulatedHost
internal import SystemPackage
internal import XenWire

/// Made for one measurement.
final class BlockStage: Stage {
    let image: OpenFile
    let byteCount: Int
    let frontend: RawBlockFrontend
    private let bench: BenchHost

    /// - Parameter directory: where the image is made.
    init(in directory: FilePath, byteCount: Int) async throws {
        self.byteCount = byteCount
        bench = try BenchHost(in: directory)
        let path = bench.folder.appending("disk.img")
        image = try BlockStage.makeImage(path, byteCount)
        let disk = SimulatedToolstack.Disk(
            DevicePath(kind: .vbd3, domain: bench.domain, index: 51712),
            params: path.string
        )
        try await bench.serve(disk, by: BlockClass(capabilities: BlockCapabilities(maxQueues: 1)))
        frontend = RawBlockFrontend(bench.guest, index: disk.path.index)
    }

    /// Written once, so that no measurement pays for its first pages.
    private static func makeImage(_ path: FilePath, _ byteCount: Int) throws -> OpenFile {
        let image = try OpenFile(path: path.string, flags: O_RDWR | O_CREAT)
        let zeroes = [UInt8](repeating: 0, count: 1 << 20)
        for offset in stride(from: 0, to: byteCount, by: zeroes.count) {
            guard unsafe pwrite(image.descriptor, zeroes, zeroes.count, off_t(offset)) == zeroes.count else {
                throw Errno(rawValue: errno)
            }
        }
        return image
    }

    func strike() async { await bench.strike() }
}
