// The shared page of pciif.h: where everything stands, and the words for commands and errors.

/// `struct xen_pci_sharedinfo`, the one page between pcifront and its backend. It holds one operation at a time and no
/// ring.
///
/// No member has more than 32 bits, so x86-32, x86-64 and arm lay it out alike.
public enum PCIWire {
    /// `XEN_PCI_MAGIC`, the frontend's key `magic`.
    public static let magic = "7"
    /// `SH_INFO_MAX_VEC`
    @inlinable public static var maxVectors: Int { 128 }

    /// `flags`
    @inlinable public static var flagsOffset: Int { 0 }
    /// `op`, a `struct xen_pci_op`
    @inlinable public static var operationOffset: Int { 4 }
    /// 36 bytes of numbers and `SH_INFO_MAX_VEC` entries of four.
    @inlinable public static var operationSize: Int { 548 }
    /// Bytes of an operation in front of `msix_entries`: all of it, for most.
    @inlinable public static var operationHeadSize: Int { 36 }
    /// `aer_op`, a `struct xen_pcie_aer_op`
    @inlinable public static var errorOperationOffset: Int { 552 }
    @inlinable public static var errorOperationSize: Int { 20 }
    /// All of it; the rest of the page means nothing.
    @inlinable public static var size: Int { 572 }

    /// `XEN_PCIF_active`: set by the frontend, cleared by the backend when `op` has its answer.
    @inlinable public static var frontendActive: UInt32 { 1 }
    /// `XEN_PCIB_AERHANDLER`: the frontend has a driver that handles errors.
    @inlinable public static var errorHandler: UInt32 { 2 }
    /// `XEN_PCIB_active`: set by the backend, cleared by the frontend when `aer_op` has its answer.
    @inlinable public static var backendActive: UInt32 { 4 }
}

/// `XEN_PCI_OP_*`
public enum PCICommand: UInt32, Sendable, CaseIterable {
    case read = 0
    case write = 1
    case enableMSI = 2
    case disableMSI = 3
    case enableMSIX = 4
    case disableMSIX = 5
    /// 6 … 9 go the other way, in `aer_op`.
    case errorDetected = 6
    case errorResume = 7
    case errorMMIOEnabled = 8
    case errorSlotReset = 9
    /// No backend has ever carried it out, and no frontend sends it.
    case enableMultiMSI = 10
}

/// `XEN_PCI_ERR_*`, an operation's `err`.
///
/// The header's comment says "errno.h", and xen-pciback answers some MSI operations with an errno; pcifront passes what
/// it does not know on to its driver. These six are all that a frontend translates.
public struct PCIError: RawRepresentable, Error, Hashable, Sendable, CustomStringConvertible {
    public let rawValue: Int32
    @inlinable public init(rawValue: Int32) { self.rawValue = rawValue }

    @inlinable public static var success: PCIError { PCIError(rawValue: 0) }
    /// pcifront reads a register of such a device as 0.
    @inlinable public static var deviceNotFound: PCIError { PCIError(rawValue: -1) }
    @inlinable public static var invalidOffset: PCIError { PCIError(rawValue: -2) }
    @inlinable public static var accessDenied: PCIError { PCIError(rawValue: -3) }
    @inlinable public static var notImplemented: PCIError { PCIError(rawValue: -4) }
    @inlinable public static var operationFailed: PCIError { PCIError(rawValue: -5) }

    // What xen-pciback answers MSI operations with.
    /// -EINVAL: more vectors than the page holds, or entries that the table does not have.
    @inlinable public static var invalidArgument: PCIError { PCIError(rawValue: -22) }
    /// -EALREADY: it is enabled.
    @inlinable public static var already: PCIError { PCIError(rawValue: -114) }
    /// -ENXIO: the other kind is enabled, or the card does not decode its memory, where its table is (XSA-157).
    @inlinable public static var notPossible: PCIError { PCIError(rawValue: -6) }

    public var description: String {
        switch self {
        case .success: "success"
        case .deviceNotFound: "device not found"
        case .invalidOffset: "invalid offset"
        case .accessDenied: "access denied"
        case .notImplemented: "not implemented"
        case .operationFailed: "operation failed"
        case .invalidArgument: "invalid argument"
        case .already: "already enabled"
        case .notPossible: "not possible now"
        default: "error \(rawValue)"
        }
    }
}

/// A register, or a part of one: where it is in the 4096 bytes of a configuration space, and how wide.
public struct PCIRegister: Hashable, Sendable, CustomStringConvertible {
    /// 0 … 4095, a multiple of `size`.
    public let offset: Int
    /// Bytes: 1, 2 or 4.
    public let size: Int

    /// Bytes of the largest configuration space (PCI Express; 256 without it).
    @inlinable public static var spaceSize: Int { 4096 }

    /// - Returns: nil unless the size is 1, 2 or 4, the offset a multiple of it, and all of it in the space.
    @inlinable
    public init?(offset: Int32, size: Int32) {
        guard size == 1 || size == 2 || size == 4, offset >= 0, offset % size == 0,
            offset <= Int32(PCIRegister.spaceSize) - size
        else { return nil }
        self.init(unchecked: Int(offset), size: Int(size))
    }

    /// One of our own tables' registers.
    @inlinable
    init(unchecked offset: Int, size: Int) {
        self.offset = offset
        self.size = size
    }

    /// The bits of a value of this width.
    @inlinable public var mask: UInt32 { size == 4 ? .max : (1 &<< UInt32(8 &* size)) &- 1 }
    @inlinable public var range: Range<Int> { offset..<offset &+ size }
    public var description: String { "\(size) bytes at \(hexadecimal(offset, digits: 3))" }
}
