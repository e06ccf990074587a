// The shared page of pciif.h from the frontend's side.

internal import Hypervisor
internal import SharedRing
public import XenWire

/// An operation as a frontend writes it: any numbers at all.
public struct PCIFrontOperation: Hashable, Sendable {
    public var command: UInt32
    public var domain: UInt32
    public var bus: UInt32
    public var devfn: UInt32
    public var offset: Int32
    public var size: Int32
    public var value: UInt32
    /// Rows of the MSI-X table; at most `PCIWire.maxVectors` are written.
    public var entries: [UInt16]

    public init(
        _ command: PCICommand,
        _ address: PCIAddress,
        offset: Int32 = 0,
        size: Int32 = 0,
        value: UInt32 = 0,
        entries: [UInt16] = []
    ) {
        self.command = command.rawValue
        domain = UInt32(address.segment)
        bus = UInt32(address.bus)
        devfn = UInt32(address.deviceFunction)
        self.offset = offset
        self.size = size
        self.value = value
        self.entries = entries
    }
}

/// The page, granted to the backend. Belongs to one frontend.
public final class PCIFrontPage: Sendable {
    private let grant: SharedGrant
    private let scratch: PrivatePages

    init(_ hypervisor: any Hypervisor, _ backend: DomainID) throws(FrontendFailure) {
        grant = try FrontendDrivers.hypervisor { () throws(HypervisorFailure) in
            try hypervisor.sharing.share(pageCount: 1, with: backend, access: .readWrite)
        }
        do { scratch = try PrivatePages(byteCount: 4096) } catch {
            throw .hypervisor(HypervisorFailure("allocate a page", error))
        }
        grant.pages.setBits(PCIWire.errorHandler, at: PCIWire.flagsOffset)
    }

    public var reference: GrantReference { grant.references[0] }

    /// An operation waits for its answer.
    public var isActive: Bool { grant.pages.loadAcquire(at: PCIWire.flagsOffset) & PCIWire.frontendActive != 0 }

    /// Writes an operation, then the flag.
    public func put(_ operation: PCIFrontOperation) {
        write(operation)
        grant.pages.setBits(PCIWire.frontendActive, at: PCIWire.flagsOffset)
    }

    /// Writes an operation without the flag: over one that is being worked on.
    public func write(_ operation: PCIFrontOperation) {
        scratch.zero(at: 0, count: PCIWire.operationSize)
        let slot = scratch.slot(at: 0, byteCount: PCIWire.operationSize)
        let words: [UInt32] = [
            operation.command, 0, operation.domain, operation.bus, operation.devfn,
            UInt32(bitPattern: operation.offset), UInt32(bitPattern: operation.size), operation.value,
        ]
        for (index, word) in words.enumerated() { slot.set32(word, at: 4 * index) }
        for (index, entry) in operation.entries.prefix(PCIWire.maxVectors).enumerated() {
            // pcifront has all ones in the vector.
            slot.set16(.max, at: PCIWire.operationHeadSize + 4 * index)
            slot.set16(entry, at: PCIWire.operationHeadSize + 4 * index + 2)
        }
        grant.pages.copyIn(at: PCIWire.operationOffset, count: PCIWire.operationSize, from: scratch, at: 0)
    }

    /// Gives an operation up, as pcifront does after two seconds.
    public func giveUp() { grant.pages.clearBits(PCIWire.frontendActive, at: PCIWire.flagsOffset) }

    /// What the backend wrote.
    public func answer(to operation: PCIFrontOperation) -> PCIAnswer {
        grant.pages.copyOut(at: PCIWire.operationOffset, count: PCIWire.operationSize, to: scratch, at: 0)
        let raw = RawPCIOperation(scratch.slot(at: 0, byteCount: PCIWire.operationSize))
        var answer = PCIAnswer(raw.error, value: raw.value)
        if operation.command == PCICommand.enableMSIX.rawValue, raw.error == .success {
            answer.vectors = operation.entries.indices.map { raw.vector($0) }
        }
        return answer
    }

    /// 32 bits anywhere in the page.
    public func word(at offset: Int) -> UInt32 { grant.pages.loadAcquire(at: offset) }
    public func setWord(_ value: UInt32, at offset: Int) { grant.pages.storeRelease(value, at: offset) }

    // MARK: the second operation

    /// The error that the backend tells of, if it does.
    func takeError() -> (PCICommand, PCIAddress)? {
        guard grant.pages.loadAcquire(at: PCIWire.flagsOffset) & PCIWire.backendActive != 0 else { return nil }
        grant.pages.copyOut(
            at: PCIWire.errorOperationOffset,
            count: PCIWire.errorOperationSize,
            to: scratch,
            at: 1024
        )
        let slot = scratch.slot(at: 1024, byteCount: PCIWire.errorOperationSize)
        guard let command = PCICommand(rawValue: slot.u32(0)),
            let address = PCIAddress(domain: slot.u32(8), bus: slot.u32(12), devfn: slot.u32(16))
        else { return nil }
        return (command, address)
    }

    func answerError(_ recovery: PCIRecovery) {
        grant.pages.storeRelease(UInt32(bitPattern: recovery.rawValue), at: PCIWire.errorOperationOffset + 4)
        grant.pages.clearBits(PCIWire.backendActive, at: PCIWire.flagsOffset)
    }
}
