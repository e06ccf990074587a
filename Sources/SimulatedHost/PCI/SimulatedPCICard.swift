// A card that exists only as its configuration space: what can be written, what clears itself, what a reset forgets.

internal import HostIO
public import HostPCI
internal import Synchronization

/// A card of a simulated host. Thread-safe; accesses wait while it hangs.
///
/// Its registers are where `Place` says: BARs that size themselves, power management, MSI with 64 bits and masks, MSI-X, PCI
/// Express with a function level reset, error reporting. Every other byte is a constant, like most of a real card's.
public final class SimulatedPCICard: Sendable {
    /// First bytes of its capabilities.
    public enum Place {
        public static let powerManagement = 0x40
        public static let msi = 0x50
        public static let vitalProductData = 0x68
        public static let msix = 0x70
        public static let express = 0xA0
        public static let errorReporting = 0x100
    }

    /// A BAR: its address, and a size of a power of two; 0 is none.
    public struct Window: Sendable {
        public var address: UInt64
        public var size: UInt64
        public var isPorts: Bool
        public var is64Bit: Bool

        public init(address: UInt64, size: UInt64, isPorts: Bool = false, is64Bit: Bool = false) {
            self.address = address
            self.size = size
            self.isPorts = isPorts
            self.is64Bit = is64Bit
        }
    }

    /// What a test looks at afterwards.
    public struct Ledger: Sendable {
        public var reads = 0
        /// Offset, bytes and value of each write, in order.
        public var writes: [(offset: Int, count: Int, value: UInt32)] = []
        public var resets = 0
    }

    private struct State: Sendable {
        var bytes: [UInt8]
        var isPlugged = true
        var isHanging = false
        var resetFails = false
        var accessFails = false
        var ledger = Ledger()
    }

    public let facts: PCIDeviceFacts
    /// After a reset.
    private let initial: [UInt8]
    /// Bits that a write changes, and bits that a written 1 clears.
    private let writable: [UInt8]
    private let clearing: [UInt8]
    private let state: Mutex<State>

    /// - Parameters:
    ///   - windows: from BAR 0 on; one of 64 bits takes two.
    ///   - rows: of the MSI-X table, which is in BAR 0.
    ///   - parent: the card that it is a virtual function of.
    public init(
        _ address: PCIBusAddress,
        vendor: UInt16 = 0x8086,
        product: UInt16 = 0x10D3,
        classCode: UInt32 = 0x020000,
        windows: [Window] = [
            Window(address: 0xF7A0_0000, size: 0x20000), Window(address: 0xC040, size: 0x20, isPorts: true),
            Window(address: 0x10_0000_0000, size: 0x1_0000_0000, is64Bit: true),
        ],
        hasMSI: Bool = true,
        rows: Int = 5,
        interrupt: UInt32 = 17,
        virtualFunctionOf parent: PCIBusAddress? = nil
    ) {
        var space = SimulatedSpace(vendor, product, classCode)
        space.addWindows(windows)
        if parent != nil { space.hardwireAsVirtualFunction() }
        space.addCapabilities(hasMSI: hasMSI, rows: rows)
        var facts = PCIDeviceFacts(address: address, vendor: vendor, product: product, classCode: classCode)
        facts.interrupt = parent == nil ? interrupt : 0
        facts.driver = "pciback"
        facts.physicalFunction = parent
        facts.windows = space.resources
        self.facts = facts
        initial = space.bytes
        writable = space.writable
        clearing = space.clearing
        state = Mutex(State(bytes: space.bytes))
    }

    // MARK: what a test does

    /// It is pulled out.
    public func unplug() { state.withLock { $0.isPlugged = false } }
    /// From now on accesses wait.
    public func hang() { state.withLock { $0.isHanging = true } }
    /// They go on.
    public func goOn() { state.withLock { $0.isHanging = false } }
    /// Whether resets fail from now on.
    public func failResets(_ fails: Bool) { state.withLock { $0.resetFails = fails } }
    /// Whether the host refuses accesses from now on.
    public func failAccesses(_ fails: Bool) { state.withLock { $0.accessFails = fails } }
    public var ledger: Ledger { state.withLock { $0.ledger } }
    /// The whole space, as the card itself has it.
    public var bytes: [UInt8] { state.withLock { $0.bytes } }
    /// Changes the space without a rule, as the card's own hardware does.
    public func set(_ bytes: [UInt8], at offset: Int) {
        state.withLock { $0.bytes.replaceSubrange(offset..<offset + bytes.count, with: bytes) }
    }
    /// 16 bits of it.
    public func word(at offset: Int) -> UInt16 {
        state.withLock { UInt16($0.bytes[offset]) | UInt16($0.bytes[offset + 1]) << 8 }
    }

    // MARK: what its host does

    var configuration: PCIConfigurationBytes { PCIConfigurationBytes(bytes) }

    func read(_ count: Int, at offset: Int) throws(HostFailure) -> UInt32 {
        try access(count, offset) { state in
            state.ledger.reads += 1
            return state.bytes[offset..<offset + count].reversed().reduce(0) { $0 << 8 | UInt32($1) }
        }
    }

    func write(_ value: UInt32, _ count: Int, at offset: Int) throws(HostFailure) {
        try access(count, offset) { state in
            state.ledger.writes.append((offset, count, value))
            let asleep = state.bytes[Place.powerManagement + 4] & 3
            for byte in 0..<count { put(UInt8(truncatingIfNeeded: value >> UInt32(8 * byte)), offset + byte, &state) }
            // From D3hot it wakes up as after a reset, but for its power state: No_Soft_Reset is 0.
            let awake = state.bytes[Place.powerManagement + 4] & 3
            if asleep == 3, awake == 0 { state.bytes = initial }
        }
    }

    private func put(_ new: UInt8, _ offset: Int, _ state: inout State) {
        let old = state.bytes[offset]
        let kept = old & ~writable[offset] & ~(new & clearing[offset])
        state.bytes[offset] = kept | new & writable[offset]
    }

    func reset() throws(HostFailure) {
        let fails = state.withLock { state in
            if state.resetFails { return true }
            state.ledger.resets += 1
            // As the kernel does it: what it had saved of the header is there again.
            let header = state.bytes[4..<0x40]
            state.bytes = initial
            state.bytes.replaceSubrange(4..<0x40, with: header)
            return false
        }
        if fails { throw HostFailure(.host, "\(facts.address) cannot be reset: it does not come back") }
    }

    /// Waits while it hangs, outside of the lock.
    private func access<Result>(
        _ count: Int,
        _ offset: Int,
        _ body: (inout State) -> Result
    ) throws(HostFailure) -> Result {
        guard [1, 2, 4].contains(count), offset >= 0, offset % count == 0, offset <= 4096 - count else {
            throw HostFailure(.invalid, "\(facts.address) has no \(count) bytes at \(offset)")
        }
        while true {
            let outcome: Swift.Result<Result, HostFailure>? = state.withLock { state in
                if state.isHanging { return nil }
                guard state.isPlugged else { return .failure(HostFailure(.notFound, "\(facts.address) is gone")) }
                guard !state.accessFails else {
                    return .failure(HostFailure(.host, "\(facts.address)'s configuration space cannot be read: EIO"))
                }
                return .success(body(&state))
            }
            if let outcome { return try outcome.get() }
            pauseForHost()
        }
    }
}
