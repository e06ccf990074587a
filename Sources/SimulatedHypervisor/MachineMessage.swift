// What the machine is asked over a socket: the calls, and their bytes.

internal import Hypervisor
internal import SystemPackage
internal import XenWire

/// The calls that reach the machine, by name: what a `FaultPlan` can make fail.
public enum SimulatedCall: UInt8, Sendable, CaseIterable {
    // A connection's first call, and the machine's own controls: never injected.
    case attach = 1
    case inject, clearFaults
    // XenStore.
    case storeRead, storeDirectory, storeWrite, storeRemove, storePermissions, storeSetPermissions
    case storeTransactionStart, storeTransactionEnd, storeWatch, storeUnwatch, storeTakeEvents
    // Grants.
    case memory, map, unmap, share, unshare, revoke, copy
    // Event channels.
    case bind, allocate, unbind
    // Domains.
    case identity
    // Interrupts of cards.
    case mapInterrupt, unmapInterrupt

    /// Answered by xenstored, so silent during an outage of it.
    var isStore: Bool { rawValue >= Self.storeRead.rawValue && rawValue <= Self.storeTakeEvents.rawValue }
    /// A fault plan leaves these alone.
    var isControl: Bool { rawValue <= Self.clearFaults.rawValue }
}

/// The bytes of a message under construction; integers are little-endian, strings and arrays carry their length.
struct MessageWriter: Sendable {
    private(set) var bytes: [UInt8] = []

    mutating func put(_ value: some FixedWidthInteger) {
        var rest = value.littleEndian
        for _ in 0..<(rest.bitWidth / 8) {
            bytes.append(UInt8(truncatingIfNeeded: rest))
            rest >>= 8
        }
    }

    mutating func put(_ value: [UInt8]) {
        put(UInt32(truncatingIfNeeded: value.count))
        bytes += value
    }

    mutating func put(_ text: String) { put(Array(text.utf8)) }

    mutating func append(_ other: MessageWriter) { bytes += other.bytes }

    mutating func put(_ numbers: [UInt32]) {
        put(UInt32(truncatingIfNeeded: numbers.count))
        for number in numbers { put(number) }
    }

    /// As Xen has it, a table's base of 0 is MSI.
    mutating func put(_ message: MessageInterrupt) {
        put(message.card.segment)
        put(message.card.bus)
        put(message.card.deviceFunction)
        put(message.row?.tableBase ?? 0)
        put(message.row?.entry ?? 0)
    }

    mutating func put(_ permissions: [XenStorePermission]) {
        put(UInt32(truncatingIfNeeded: permissions.count))
        for permission in permissions {
            put(permission.domain.rawValue)
            put(permission.access.code)
        }
    }
}

/// Reads a message; anything that does not fit is `EBADMSG`.
struct MessageReader: Sendable {
    private var rest: ArraySlice<UInt8>

    init(_ bytes: [UInt8]) { rest = bytes[...] }

    mutating func integer<T: FixedWidthInteger>(_ type: T.Type = T.self) throws(Errno) -> T {
        let count = T.bitWidth / 8
        guard rest.count >= count else { throw .badMessage }
        var value: T = 0
        for byte in rest.prefix(count).reversed() { value = (value << 8) | T(truncatingIfNeeded: byte) }
        rest = rest.dropFirst(count)
        return value
    }

    private mutating func count(of size: Int) throws(Errno) -> Int {
        let count = Int(try integer(UInt32.self))
        guard count <= rest.count / size else { throw .badMessage }
        return count
    }

    mutating func blob() throws(Errno) -> [UInt8] {
        let count = try count(of: 1)
        defer { rest = rest.dropFirst(count) }
        return Array(rest.prefix(count))
    }

    mutating func text() throws(Errno) -> String {
        guard let text = String(validating: try blob(), as: UTF8.self) else { throw .badMessage }
        return text
    }

    mutating func numbers() throws(Errno) -> [UInt32] {
        let count = try count(of: 4)
        var numbers: [UInt32] = []
        numbers.reserveCapacity(count)
        for _ in 0..<count { numbers.append(try integer()) }
        return numbers
    }

    mutating func domain() throws(Errno) -> DomainID {
        guard let domain = DomainID(try integer()) else { throw .invalidArgument }
        return domain
    }

    mutating func message() throws(Errno) -> MessageInterrupt {
        let segment: UInt16 = try integer()
        let bus: UInt8 = try integer()
        let card = PCIAddress(segment: segment, bus: bus, deviceFunction: try integer())
        let tableBase: UInt64 = try integer()
        let entry: UInt16 = try integer()
        return MessageInterrupt(card, row: tableBase == 0 ? nil : .init(entry: entry, tableBase: tableBase))
    }

    mutating func permissions() throws(Errno) -> [XenStorePermission] {
        let count = try count(of: 3)
        var permissions: [XenStorePermission] = []
        for _ in 0..<count {
            let domain = try domain()
            permissions.append(XenStorePermission(domain, XenStorePermission.Access(code: try integer())))
        }
        return permissions
    }
}

extension XenStorePermission.Access {
    fileprivate var code: UInt8 {
        switch self {
        case .none: 0
        case .read: 1
        case .write: 2
        case .readWrite: 3
        }
    }

    fileprivate init(code: UInt8) {
        switch code & 3 {
        case 1: self = .read
        case 2: self = .write
        case 3: self = .readWrite
        default: self = .none
        }
    }
}
