// The host's cards: how to have one for a guest, and how it comes back.

public import HostIO
public import SystemPackage

/// The cards of a host, real or simulated.
public protocol PCIHost: AnyObject, Sendable {
    /// Takes a card for one owner. May block for a while, if the card must be reset first: off the loops.
    ///
    /// From then on the card counts as used until `OpenPCICard.finish` has reset it, whichever process dies meanwhile:
    /// nobody else gets it without a reset.
    /// - Parameters:
    ///   - owner: who has it, for the message that others get: `backend/pci/7/0`.
    ///   - isTakeover: a guest that has the card goes on using it; the owner's name is the same, and the card is left as
    ///     it is.
    /// - Throws: `.notFound` if it is gone, `.busy` naming who has it, `.denied` for a bridge, and for a card that another
    ///   owner left and that cannot be reset, `.host` for what the kernel says.
    func take(_ address: PCIBusAddress, owner: String, isTakeover: Bool) throws(HostFailure) -> any OpenPCICard

    /// Calls `reported` on the loop for each step of the kernel's recovery of a card from an error, of whichever card.
    func watchErrors(
        on loop: EventLoop,
        _ reported: @escaping @Sendable (PCIErrorEvent) -> Void
    ) throws(HostFailure) -> any PCIErrorWatch
}

/// A card that was taken, its owner's until the last reference is gone or the process dies. Calls may block.
public protocol OpenPCICard: AnyObject, Sendable {
    /// As they were when the card was taken.
    var facts: PCIDeviceFacts { get }
    /// The space as it was then.
    var original: PCIConfigurationBytes { get }
    /// Reads 1, 2 or 4 bytes, as one access.
    /// - Parameter offset: a multiple of `count`.
    /// - Throws: `.invalid` beyond the space, `.notFound` if the card is gone, `.host` for what the kernel says.
    func read(_ count: Int, at offset: Int) throws(HostFailure) -> UInt32
    /// Writes 1, 2 or 4 bytes, as one access.
    func write(_ value: UInt32, _ count: Int, at offset: Int) throws(HostFailure)
    /// Whether the card answers to its memory addresses. COMMAND of a virtual function does not say so: its parent's does (SR-IOV
    /// 1.1, 3.4.1.3), which is where Xen and xen-pciback look.
    /// - Throws: `.notFound` if the card, or its parent, is gone, `.host` for what the kernel says.
    func decodesMemory() throws(HostFailure) -> Bool
    /// Puts the card into a power state (0 … 3) and waits until it is there.
    func enter(powerState: UInt8) throws(HostFailure)
    /// Makes addresses, cache line, latency and COMMAND what they were in `header`, without bus mastering.
    /// - Parameter header: the first 64 bytes of the space, or more.
    func restore(to header: PCIConfigurationBytes) throws(HostFailure)
    /// The guest has it no more: resets the card, which then counts as unused.
    /// - Returns: what is worth a line in the log; nil if all is as it should be.
    /// - Throws: why it could not be reset: it stays used.
    func finish() throws(HostFailure) -> String?
}

/// The running kernel's cards.
public final class KernelPCIHost: PCIHost {
    public let stub: PCIStub
    /// Where owners' locks and marks are: a folder of the service's, the same for all of it.
    public let locks: FilePath

    public init(_ stub: PCIStub, locks: FilePath) {
        self.stub = stub
        self.locks = locks
    }

    public func take(
        _ address: PCIBusAddress,
        owner: String,
        isTakeover: Bool
    ) throws(HostFailure) -> any OpenPCICard {
        if !isTakeover { try checkHidden(address) }
        var card: PCICard? = try PCICard(address, in: stub.tree, owner: owner, locks: locks)
        let mark = UsedMark(address, in: locks)
        if let last = mark.owner, !isTakeover || last != owner {
            try card?.prepareReset()
            do throws(HostFailure) { try stub.reset(address) } catch {
                guard stub.tree.resetMethods(of: address).isEmpty else {
                    throw HostFailure(
                        .denied,
                        "\(address) was left by \(last) and cannot be reset: \(error); it is in quarantine until it can"
                    )
                }
            }
            // Taken once more: what is restored later is what it is after the reset. The lock must be free for that.
            card = nil
            card = try PCICard(address, in: stub.tree, owner: owner, locks: locks)
        }
        guard let card else { throw HostFailure(.busy, "\(address) was taken by somebody else meanwhile") }
        try mark.set(owner)
        return KernelPCICard(card, stub, mark)
    }

    public func watchErrors(
        on loop: EventLoop,
        _ reported: @escaping @Sendable (PCIErrorEvent) -> Void
    ) throws(HostFailure) -> any PCIErrorWatch {
        try KernelErrorWatch(loop: loop, reported)
    }

    /// A card that a driver of the host works with, or may at any time, is nobody's to give away.
    private func checkHidden(_ address: PCIBusAddress) throws(HostFailure) {
        let cure = "xenback pci-assignable-add \(address) hides it"
        switch try stub.tree.device(address).driver {
        case let driver? where driver == stub.name || KernelPCIHost.stubs.contains(driver): return
        case let driver?: throw HostFailure(.busy, "the host uses \(address) with \(driver); \(cure)")
        case nil: throw HostFailure(.denied, "no driver has \(address), and any may take it; \(cure)")
        }
    }

    /// Drivers that do nothing with what they have.
    private static let stubs: Set<String> = ["pciback", "pci-stub", "vfio-pci"]
}

/// A card of the running kernel.
private final class KernelPCICard: OpenPCICard {
    private let card: PCICard
    private let stub: PCIStub
    private let mark: UsedMark

    init(_ card: PCICard, _ stub: PCIStub, _ mark: UsedMark) {
        self.card = card
        self.stub = stub
        self.mark = mark
    }

    var facts: PCIDeviceFacts { card.facts }
    var original: PCIConfigurationBytes { card.original }

    func read(_ count: Int, at offset: Int) throws(HostFailure) -> UInt32 { try card.read(count, at: offset) }
    func write(_ value: UInt32, _ count: Int, at offset: Int) throws(HostFailure) {
        try card.write(value, count, at: offset)
    }
    func decodesMemory() throws(HostFailure) -> Bool {
        guard let parent = card.facts.physicalFunction else { return try card.read(2, at: 4) & 2 != 0 }
        return try stub.tree.configuration(of: parent).decodesMemory
    }
    func enter(powerState: UInt8) throws(HostFailure) { try card.enter(powerState: powerState) }
    func restore(to header: PCIConfigurationBytes) throws(HostFailure) { try card.restore(to: header) }

    func finish() throws(HostFailure) -> String? {
        let address = card.facts.address
        guard stub.tree.facts(of: address) != nil else {
            // Whatever is plugged in there next is another card.
            mark.clear()
            return "\(address) is gone from the host"
        }
        guard !stub.tree.resetMethods(of: address).isEmpty else {
            mark.clear()
            return "\(address) cannot be reset: its next owner finds it as this one left it"
        }
        try stub.reset(address)
        mark.clear()
        return nil
    }
}

/// Who has a card, or had it last and left it without a reset: a file, which outlives all processes.
private struct UsedMark: Sendable {
    private let path: FilePath

    init(_ address: PCIBusAddress, in locks: FilePath) { path = locks.appending("\(address).used") }

    /// nil if the card is as after a reset.
    var owner: String? {
        guard let bytes = try? Files.contents(of: path, limit: 512) else { return nil }
        return String(decoding: bytes.prefix { $0 != 0x0a }, as: UTF8.self)
    }

    func set(_ owner: String) throws(HostFailure) {
        if self.owner == owner { return }
        do throws(Errno) {
            try Files.remove(path)
            try Files.make(path, owner + "\n", permissions: [.ownerReadWrite])
        } catch {
            throw HostFailure(.host, "\(path) cannot be written: \(error)")
        }
    }

    func clear() { try? Files.remove(path) }
}
