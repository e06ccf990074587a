// Everything that can go wrong with a request, whose fault it is, and the answer it becomes.

internal import BackendCore
internal import Hypervisor
internal import SharedRing
internal import SystemPackage
internal import XenWire

/// Why a request is not answered with okay.
enum BlockFault: Error, Hashable, Sendable {
    /// The request itself is wrong.
    case request(BlockRequestFault)
    /// Xen refused one of its grants.
    case grant(GrantStatus)
    /// The drive is empty.
    case noMedium
    /// The image ends before its disk does: somebody truncated it under us.
    case truncatedImage
    /// The host's storage failed.
    case storage(Errno)
    /// The hypervisor could not be asked.
    case hypervisor(Errno)

    init(_ failure: CopyFailure) {
        switch failure {
        case .grant(let status): self = .grant(status)
        case .hypervisor(let failure): self = .hypervisor(failure.errno)
        }
    }

    /// Whose fault it is, which decides how it is logged. `storage` was logged, with the image's path, when the
    /// transfer ended.
    enum Origin: Sendable { case frontend, host, storage, nobody }

    /// The one place where faults become answers.
    var verdict: (status: BlockStatus, origin: Origin) {
        switch self {
        case .request(let fault): (fault.status, .frontend)
        case .grant: (.error, .frontend)
        case .noMedium: (.error, .nobody)
        case .truncatedImage: (.error, .storage)
        case .storage(let errno) where errno == .notSupported: (.unsupported, .nobody)
        case .storage: (.error, .storage)
        case .hypervisor: (.error, .host)
        }
    }
}

extension BlockFault: CustomStringConvertible {
    var description: String {
        switch self {
        case .request(let fault): fault.description
        case .grant(let status): "a grant was refused (GNTST \(status.rawValue))"
        case .noMedium: "no medium in the drive"
        case .truncatedImage: "the image is shorter than the disk: was it truncated?"
        case .storage(let errno): "the host's storage failed: \(errno)"
        case .hypervisor(let errno): "the hypervisor failed: \(errno)"
        }
    }
}
