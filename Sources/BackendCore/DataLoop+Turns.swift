// A queue's turn on its loop: marked, and with a batch of copies that is empty before and after.

public import Hypervisor
public import SharedRing
public import XenWire

/// Why a copy was not made.
public enum CopyFailure: Error, Sendable, CustomStringConvertible {
    /// Xen refused this copy: the grant is bad (the frontend's fault).
    case grant(GrantStatus)
    /// The batch could not be tried at all (the host's).
    case hypervisor(HypervisorFailure)

    public var description: String {
        switch self {
        case .grant(let status): "grant copy: status \(status.rawValue)"
        case .hypervisor(let failure): "\(failure)"
        }
    }
}

extension DataLoop {
    /// Runs a turn of a queue: the device is marked meanwhile, and the batch of copies is its own.
    @inlinable
    public func turn<Result>(_ mark: CrashLane, _ body: () -> Result) -> Result {
        mark.during {
            dropCopies()
            return body()
        }
    }

    /// Copies that a turn left in the batch would be run by the next queue, and their statuses read as its own.
    @usableFromInline
    func dropCopies() {
        guard copies.count > 0 else { return }
        assertionFailure("a turn left \(copies.count) copies behind")
        copies.clear()
    }

    /// Makes all copies of the batch, and empties it.
    /// - Parameter failed: called for each copy that was not made, by its index in the batch (XSA-361: each has its own
    ///   status). It must not touch `copies`.
    /// - Returns: how many copies there were.
    @inlinable
    @discardableResult
    public func runCopies(
        _ grants: any GrantTable,
        with domain: DomainID,
        failed: (Int, CopyFailure) -> Void
    ) -> Int {
        let count = copies.count
        guard count > 0 else { return 0 }
        switch DataLoop.makeCopies(&copies, grants, domain) {
        case .made: break
        case .refused:
            for index in 0..<count where copies.status(of: index) != .okay {
                failed(index, .grant(copies.status(of: index)))
            }
        case .failed(let failure):
            for index in 0..<count { failed(index, .hypervisor(failure)) }
        }
        copies.clear()
        return count
    }

    @usableFromInline
    enum CopyEnd {
        /// All of them.
        case made
        /// Not all: each has its status.
        case refused
        case failed(HypervisorFailure)
    }

    @usableFromInline
    static func makeCopies(_ copies: inout GrantCopyBatch, _ grants: any GrantTable, _ domain: DomainID) -> CopyEnd {
        do throws(HypervisorFailure) {
            try grants.copy(&copies, with: domain)
        } catch {
            return .failed(error)
        }
        for index in 0..<copies.count where copies.status(of: index) != .okay { return .refused }
        return .made
    }
}
