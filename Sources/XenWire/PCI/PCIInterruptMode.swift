// How a card interrupts its guest, and which changes of it are possible: XSA-157 was a backend that did not ask.

/// One at a time.
public enum PCIInterruptMode: Hashable, Sendable {
    /// The card's pin, or none.
    case line
    /// MSI, with the guest's interrupt for it.
    case message(UInt32)
    /// MSI-X, with the guest's interrupts for rows of the table.
    case messages([PCIVector])

    /// Checks an `enableMSI`. xen-pciback has one error for all that can be wrong.
    /// - Parameter hasMSI: whether the card has the capability.
    public func enableMSI(hasMSI: Bool) throws(PCIError) {
        guard hasMSI, self == .line else { throw .operationFailed }
    }

    /// Checks an `enableMSIX`.
    /// - Parameters:
    ///   - entries: rows of the table, all different.
    ///   - tableSize: how many the card has, 1 … 2048; nil without MSI-X.
    ///   - decodesMemory: whether the card's memory, where the table is, is switched on.
    public func enableMSIX(_ entries: [UInt16], tableSize: Int?, decodesMemory: Bool) throws(PCIError) {
        switch self {
        case .messages: throw .already
        case .message: throw .notPossible
        case .line: break
        }
        guard let tableSize, decodesMemory else { throw .notPossible }
        guard entries.allSatisfy({ Int($0) < tableSize }) else { throw .invalidArgument }
    }

    /// Whether a `disableMSI` has something to do. Where it has not it succeeds all the same: pcifront sends it when a
    /// driver is unloaded, whatever it had.
    public var isMSI: Bool { if case .message = self { true } else { false } }
    /// The same for `disableMSIX`.
    public var isMSIX: Bool { if case .messages = self { true } else { false } }
}
