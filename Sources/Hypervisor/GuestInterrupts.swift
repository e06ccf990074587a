// Interrupts of the host's cards that a guest gets: asked of the hypervisor, which keeps them.

public import XenWire

/// A message-signalled interrupt of a card of the host.
public struct MessageInterrupt: Hashable, Sendable {
    /// A row of the card's MSI-X table.
    public struct Row: Hashable, Sendable {
        public let entry: UInt16
        /// The host's address of the window that the table is in, never 0 (the window, not the table: Xen reads the
        /// table's offset from the card).
        public let tableBase: UInt64

        public init(entry: UInt16, tableBase: UInt64) {
            self.entry = entry
            self.tableBase = tableBase
        }
    }

    /// On the host's buses.
    public let card: PCIAddress
    /// nil: MSI.
    public let row: Row?

    public init(_ card: PCIAddress, row: Row? = nil) {
        self.card = card
        self.row = row
    }
}

/// The number of an interrupt in its domain (a pirq): what a PV guest binds an event channel to.
public struct PhysicalInterrupt: Hashable, Sendable {
    public let rawValue: UInt32
    public init(_ rawValue: UInt32) { self.rawValue = rawValue }
}

/// Interrupts for other domains (public/physdev.h, `PHYSDEVOP_map_pirq` and `PHYSDEVOP_unmap_pirq`). Safe to use from
/// several threads.
///
/// What is mapped is the hypervisor's: it outlives the process that asked, until somebody unmaps it or the domain is
/// destroyed. Nobody can ask what is mapped.
public protocol GuestInterrupts: AnyObject, Sendable {
    /// Gives a domain one interrupt of a card that it was assigned. The hypervisor writes address and data into the card,
    /// and leaves it masked until the guest binds it; that the card uses MSI or MSI-X at all is switched on by the caller.
    /// - Throws: `ESRCH` without such a domain; `EPERM` if we may not; `ENODEV` if the card is not the domain's or has no
    ///   such capability; `EINVAL` for a row that its table has not; `ENXIO` if its memory, where the table is, is switched
    ///   off; `ENODATA` if its MSI-X was not prepared when it was hidden; `ENOSPC` if the domain has no number left.
    func map(_ message: MessageInterrupt, for domain: DomainID) throws(HypervisorFailure) -> PhysicalInterrupt

    /// Takes an interrupt away, bound or not.
    /// - Throws: `ESRCH` without such a domain, `EINVAL` if it has no such interrupt, `EPERM`.
    func unmap(_ interrupt: PhysicalInterrupt, of domain: DomainID) throws(HypervisorFailure)
}
