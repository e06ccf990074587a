// What a simulated device does, apart from what all devices do.

public import HostUSB
public import SharedRing

/// The function of a simulated device: its descriptors and its endpoints. The simulation handles endpoint 0's standard
/// requests.
///
/// Called on the loop of the device's owner, one call at a time.
public protocol SimulatedFunction: AnyObject, Sendable {
    /// Strings 1 … 3 of the device descriptor.
    var strings: SimulatedStrings { get }
    var speed: USBSpeed { get }
    var descriptors: USBDescriptors { get }

    /// A request that the simulation does not handle: of a class or vendor, or for a descriptor of an interface.
    func control(_ setup: USBSetup, _ data: SimulatedBytes) -> SimulatedAnswer
    /// The next transfer of a bulk or interrupt endpoint. `.wait`: not now; it is asked again after other transfers and
    /// after `wake`.
    func transfer(endpoint: UInt8, _ data: SimulatedBytes) -> SimulatedAnswer
    /// One isochronous packet. `frame` is the number of the interval since the endpoint came to life; numbers that are
    /// left out had no transfer.
    /// - Returns: bytes moved.
    func packet(endpoint: UInt8, frame: UInt64, _ data: SimulatedBytes) -> Int
    /// A reset, a new configuration, or (`endpoint`) a halt that was cleared.
    func restart(endpoint: UInt8?)
    /// Called by the function, on any thread, when it has data for a waiting endpoint; nil when the owner goes.
    func setWake(_ wake: (@Sendable () -> Void)?)
}

extension SimulatedFunction {
    public func control(_ setup: USBSetup, _ data: SimulatedBytes) -> SimulatedAnswer { .stall }
    public func transfer(endpoint: UInt8, _ data: SimulatedBytes) -> SimulatedAnswer { .stall }
    public func packet(endpoint: UInt8, frame: UInt64, _ data: SimulatedBytes) -> Int { 0 }
    public func restart(endpoint: UInt8?) {}
    public func setWake(_ wake: (@Sendable () -> Void)?) {}
}

/// Strings of a device descriptor.
public struct SimulatedStrings: Hashable, Sendable {
    public var manufacturer: String
    public var product: String
    public var serial: String?

    public init(manufacturer: String = "xenback", product: String, serial: String? = nil) {
        self.manufacturer = manufacturer
        self.product = product
        self.serial = serial
    }
}

/// An endpoint's answer.
public enum SimulatedAnswer: Hashable, Sendable {
    /// All that there was room for has come, and a packet did not fit into it.
    case overflowed
    /// That many bytes were moved; fewer than there was room for end the transfer.
    case moved(Int)
    case stall
    case wait
}

/// The bytes of a transfer.
public struct SimulatedBytes: Sendable {
    public let pages: PrivatePages
    public let offset: Int
    public let count: Int

    /// The byte at `index`, which must be below `count`.
    public func byte(_ index: Int) -> UInt8 { slot.u8(index) }

    /// As much of `bytes` as there is room for.
    public func fill(_ bytes: [UInt8]) -> SimulatedAnswer {
        let moved = min(bytes.count, count)
        pages.write(Array(bytes.prefix(moved)), at: offset)
        return .moved(moved)
    }

    /// All of them.
    public var array: [UInt8] { (0..<count).map { byte($0) } }

    var slot: Slot { pages.slot(at: offset, byteCount: count) }
}

/// Descriptors, put together.
enum SimulatedDescriptors {
    static func device(
        _ speed: USBSpeed,
        vendor: UInt16,
        product: UInt16,
        hasSerial: Bool
    ) -> [UInt8] {
        let isSuper = speed == .super
        // bMaxPacketSize0 is an exponent from USB 3.0 on (USB 3.2, 9.6.1).
        return [18, USBDescriptorType.device, 0, isSuper ? 3 : 2, 0, 0, 0, isSuper ? 9 : speed == .low ? 8 : 64]
            + word(vendor) + word(product) + [0, 1, 1, 2, hasSerial ? 3 : 0, 1]
    }

    /// Configuration 1, bus powered, 100 mA.
    static func configuration(interfaces: UInt8, _ body: [UInt8]) -> [UInt8] {
        [9, USBDescriptorType.configuration] + word(UInt16(9 + body.count)) + [interfaces, 1, 0, 0x80, 50] + body
    }

    static func interface(
        _ number: UInt8,
        alternate: UInt8 = 0,
        endpoints: UInt8,
        _ triple: (UInt8, UInt8, UInt8)
    ) -> [UInt8] {
        [9, USBDescriptorType.interface, number, alternate, endpoints, triple.0, triple.1, triple.2, 0]
    }

    /// With its companion (USB 3.2, 9.6.7) on a SuperSpeed device.
    static func endpoint(
        _ address: UInt8,
        attributes: UInt8,
        packetSize: UInt16,
        interval: UInt8 = 0,
        burst: UInt8? = nil
    ) -> [UInt8] {
        let companion: [UInt8] = burst.map { [6, USBDescriptorType.endpointCompanion, $0, 0, 0, 0] } ?? []
        return [7, USBDescriptorType.endpoint, address, attributes] + word(packetSize) + [interval] + companion
    }

    static func string(_ text: String) -> [UInt8] {
        let units = text.utf16.prefix(126).flatMap { word($0) }
        return [UInt8(2 + units.count), USBDescriptorType.string] + units
    }

    static func word(_ value: UInt16) -> [UInt8] { [UInt8(truncatingIfNeeded: value), UInt8(value >> 8)] }
}
