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
    public func turn<Result>(_ mark: CrashMark, _ body: () -> Result) -> Result {
        mark.during {
            dropCopies()
            return body()
        }
    }

    /// Copies that a turn left in the batch would be run by the next queue, and their statuses read as its own.
    private func dropCopies() {
        guard copies.count > 0 else { return }
        assertionFailure("a turn left \(copies.count) copies behind")
        copies.clear()
    }

    /// Makes all copies of the batch, and empties it.
    /// - Parameter failed: called for each copy that was not made, by its index in the batch (XSA-361: each has its own
    ///   status). It must not touch `copies`.
    /// - Returns: how many copies there were.
    @discardableResult
    public func runCopies(
        _ grants: any GrantTable,
        with domain: DomainID,
        failed: (Int, CopyFailure) -> Void
    ) -> Int {
        let count = copies.count
        guard count > 0 else { return 0 }
        defer { copies.clear() }
        do throws(HypervisorFailure) {
            guard try DataLoop.makesAll(&copies, grants, domain) else {
                for index in 0..<count where copies.status(of: index) != .okay {
                    failed(index, .grant(copies.status(of: index)))
                }
                return count
            }
        } catch {
            for index in 0..<count { failed(index, .hypervisor(error)) }
        }
        return count
    }

    private static func makesAll(
        _ copies: inout GrantCopyBatch,
        _ grants: any GrantTable,
        _ domain: DomainID
    ) throws(HypervisorFailure) -> Bool {
        try grants.copy(&copies, with: domain)
        for index in 0..<copies.count where copies.status(of: index) != .okay { return false }
        return true
    }
}
