// An operation as a frontend left it in the shared page, decoded from a private copy; and its answer.

/// One vector of MSI-X (pciif.h, `struct xen_msix_entry`).
public struct PCIVector: Hashable, Sendable {
    /// OUT: the interrupt (pirq) that the guest binds. What comes in means nothing.
    public var vector: UInt16
    /// IN: the row of the card's table.
    public var entry: UInt16

    @inlinable
    public init(entry: UInt16, vector: UInt16 = 0) {
        self.vector = vector
        self.entry = entry
    }
}

/// A view of an operation in private memory (`struct xen_pci_op`, 548 bytes). Nothing of it is believed.
public struct RawPCIOperation<Bytes: WireBytes> {
    @usableFromInline let bytes: Bytes
    @inlinable public init(_ bytes: Bytes) { self.bytes = bytes }

    @inlinable public var command: UInt32 { bytes.u32(0) }
    @inlinable public var error: PCIError { PCIError(rawValue: Int32(bitPattern: bytes.u32(4))) }
    @inlinable public var domain: UInt32 { bytes.u32(8) }
    @inlinable public var bus: UInt32 { bytes.u32(12) }
    @inlinable public var devfn: UInt32 { bytes.u32(16) }
    @inlinable public var offset: Int32 { Int32(bitPattern: bytes.u32(20)) }
    @inlinable public var size: Int32 { Int32(bitPattern: bytes.u32(24)) }
    @inlinable public var value: UInt32 { bytes.u32(28) }
    /// "extra info"; no command has any.
    @inlinable public var info: UInt32 { bytes.u32(32) }
    /// - Parameter index: 0 ..< `PCIWire.maxVectors`, ours.
    @inlinable
    public func vector(_ index: Int) -> PCIVector {
        let at = PCIWire.operationHeadSize &+ 4 &* index
        return PCIVector(entry: bytes.u16(at &+ 2), vector: bytes.u16(at))
    }
}

/// What a frontend asks for, with numbers that cannot be wrong any more.
public enum PCIRequest: Hashable, Sendable {
    case read(PCIRegister)
    case write(PCIRegister, UInt32)
    case enableMSI
    case disableMSI
    /// 1 … 128 different rows of the table, in the frontend's order. Whether the card has them, the backend knows.
    case enableMSIX([UInt16])
    case disableMSIX

    /// Checks an operation.
    /// - Throws: what it is to be answered with.
    public init(validating raw: RawPCIOperation<some WireBytes>) throws(PCIError) {
        switch PCICommand(rawValue: raw.command) {
        case .read: self = .read(try PCIRequest.register(raw))
        case .write:
            let register = try PCIRequest.register(raw)
            // What does not fit is dropped, as in Linux, where the parameter's type drops it.
            self = .write(register, raw.value & register.mask)
        case .enableMSI: self = .enableMSI
        case .disableMSI: self = .disableMSI
        case .enableMSIX: self = .enableMSIX(try PCIRequest.entries(raw))
        case .disableMSIX: self = .disableMSIX
        case .errorDetected, .errorResume, .errorMMIOEnabled, .errorSlotReset, .enableMultiMSI, nil:
            throw .notImplemented
        }
    }

    private static func register(_ raw: RawPCIOperation<some WireBytes>) throws(PCIError) -> PCIRegister {
        guard let register = PCIRegister(offset: raw.offset, size: raw.size) else { throw .invalidOffset }
        return register
    }

    private static func entries(_ raw: RawPCIOperation<some WireBytes>) throws(PCIError) -> [UInt16] {
        guard raw.value >= 1, raw.value <= UInt32(PCIWire.maxVectors) else { throw .invalidArgument }
        let entries = (0..<Int(raw.value)).map { raw.vector($0).entry }
        guard Set(entries).count == entries.count else { throw .invalidArgument }
        return entries
    }
}

/// What an operation is answered with: `err`, `value` and, for MSI-X, the vectors.
public struct PCIAnswer: Hashable, Sendable {
    public var error: PCIError
    /// What was read, or MSI's interrupt. After `enableMSIX` 0 says that there are as many vectors as asked for.
    public var value: UInt32
    /// After a successful `enableMSIX`: one for each row asked for, in that order. Otherwise empty.
    public var vectors: [PCIVector]

    @inlinable
    public init(_ error: PCIError = .success, value: UInt32 = 0, vectors: [PCIVector] = []) {
        self.error = error
        self.value = value
        self.vectors = vectors
    }

    /// Writes what the frontend reads into an operation (548 bytes of ours). Everything else of it stays.
    public func encode(into bytes: some WritableWireBytes) {
        bytes.set32(UInt32(bitPattern: error.rawValue), at: 4)
        bytes.set32(value, at: 28)
        for (index, vector) in vectors.prefix(PCIWire.maxVectors).enumerated() {
            bytes.set16(vector.vector, at: PCIWire.operationHeadSize &+ 4 &* index)
            bytes.set16(vector.entry, at: PCIWire.operationHeadSize &+ 4 &* index &+ 2)
        }
    }
}

/// What becomes of a card that reported an error, as the guest's driver says (`aer_op.err`; Linux, `pci_ers_result`).
public enum PCIRecovery: Int32, Sendable, CaseIterable {
    /// The driver has no opinion.
    case none = 1
    case canRecover = 2
    case needsReset = 3
    case disconnect = 4
    case recovered = 5
    /// The driver does not take part.
    case noErrorHandler = 6
}

/// What the host tells the guest's driver about an error (`aer_op.err` on the way in; Linux, `pci_channel_state_t`).
public enum PCIChannelState: Int32, Sendable, CaseIterable {
    case normal = 1
    /// No access gets through until a reset.
    case frozen = 2
    case failed = 3
}

/// The second operation of the page, which the backend begins (`struct xen_pcie_aer_op`, 20 bytes).
public struct PCIErrorOperation: Hashable, Sendable {
    /// 6 … 9
    public var command: PCICommand
    public var state: PCIChannelState
    /// As the guest sees the card.
    public var address: PCIAddress

    public init(_ command: PCICommand, _ state: PCIChannelState, _ address: PCIAddress) {
        self.command = command
        self.state = state
        self.address = address
    }

    public func encode(into bytes: some WritableWireBytes) {
        bytes.set32(command.rawValue, at: 0)
        bytes.set32(UInt32(bitPattern: state.rawValue), at: 4)
        bytes.set32(UInt32(address.segment), at: 8)
        bytes.set32(UInt32(address.bus), at: 12)
        bytes.set32(UInt32(address.deviceFunction), at: 16)
    }

    /// The frontend's word on it.
    /// - Returns: nil for a number that means nothing; the guest's driver is not heard then.
    public static func recovery(_ bytes: some WireBytes) -> PCIRecovery? {
        PCIRecovery(rawValue: Int32(bitPattern: bytes.u32(4)))
    }
}
