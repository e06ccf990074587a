// Grants: other domains' pages mapped or copied, and our own pages shared.

public import SharedRing
public import XenWire

/// Whether a mapping may be written.
public enum GrantAccess: Sendable { case readOnly, readWrite }

/// The backend's half of grant tables. Safe to use from several threads.
public protocol GrantTable: AnyObject, Sendable {
    /// Maps pages that `domain` granted to us, one behind the other, until the last reference to the result goes.
    /// - Throws: `EINVAL`/`EACCES`/`ENOENT` and the like for a bad reference; then none is mapped.
    func map(
        _ references: [GrantReference],
        of domain: DomainID,
        access: GrantAccess
    ) throws(HypervisorFailure) -> SharedPages

    /// Runs all copies of the batch; each has its own status afterwards (XSA-361: look at every one).
    /// - Throws: only if the batch as a whole could not be tried.
    func copy(_ batch: inout GrantCopyBatch, with domain: DomainID) throws(HypervisorFailure)
}

/// The frontend's half: our own zeroed pages, granted to another domain.
public protocol GrantSharing: AnyObject, Sendable {
    /// Allocates and grants `pageCount` pages.
    func share(
        pageCount: Int,
        with domain: DomainID,
        access: GrantAccess
    ) throws(HypervisorFailure) -> SharedGrant
}

/// Pages of ours that another domain may use. The grant ends when the last reference to `pages` goes.
public struct SharedGrant: Sendable {
    /// One for each page, in order.
    public let references: [GrantReference]
    public let pages: SharedPages
    public init(references: [GrantReference], pages: SharedPages) {
        self.references = references
        self.pages = pages
    }
}
