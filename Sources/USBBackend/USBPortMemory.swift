// What a successor must know about each port, so that the guest's devices stay where they are.

internal import HostUSB
internal import SharedRing
internal import XenWire

/// One port as the frontend knows it. Kept in the journal's state, ports one behind the other: speed, address, whether it
/// was used, configuration, then the alternate settings of 32 interfaces in a byte each, two bytes of `remainders`, then (from 40)
/// the device's identity in 8.
struct USBPortMemory: Hashable, Sendable {
    /// Interfaces whose alternate setting is remembered.
    static let interfaces = 32
    private static let identityOffset = 40
    static let byteCount = 48
    /// Room for all ports a controller can have.
    static let totalBytes = byteCount * Int(USBPort.maxNumber)

    /// What the frontend was told.
    var told = USBIFSpeed.none
    /// The address that the guest gave the device.
    var address: UInt8 = 0
    /// The device was given an address after its last reset.
    var isUsed = false
    var configuration: UInt8 = 0
    var alternates = [UInt8](repeating: 0, count: interfaces)
    /// Bits of endpoint numbers: the guest has received only the first half of a packet.
    var remainders: UInt16 = 0
    /// Which device it is.
    var identity: UInt64 = 0

    /// The device itself, not its model: unplugged and plugged in again it is another device to its guest.
    static func identity(of facts: USBDeviceFacts) -> UInt64 {
        // FNV-1a
        var hash: UInt64 = 0xCBF2_9CE4_8422_2325
        let text =
            "\(facts.address);\(facts.busNumber);\(facts.deviceNumber);\(facts.vendor);\(facts.product);"
            + "\(facts.release);\(facts.serial ?? "")"
        for byte in text.utf8 { hash = (hash ^ UInt64(byte)) &* 0x0000_0100_0000_01B3 }
        return hash
    }

    /// The bytes of several ports.
    static func bytes(of ports: [USBPortMemory]) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(ports.count * byteCount)
        for port in ports {
            let start = bytes.count
            bytes += [port.told.rawValue, port.address, port.isUsed ? 1 : 0, port.configuration]
            bytes += port.alternates.prefix(interfaces)
            bytes += [UInt8(truncatingIfNeeded: port.remainders), UInt8(port.remainders >> 8)]
            while bytes.count < start + identityOffset { bytes.append(0) }
            for shift in 0..<8 { bytes.append(UInt8(truncatingIfNeeded: port.identity >> UInt64(8 * shift))) }
        }
        return bytes
    }

    /// Reads `count` ports; those that are missing or malformed are empty.
    static func ports(_ count: Int, from bytes: [UInt8]) -> [USBPortMemory] {
        (0..<count).map { index in
            let start = index * byteCount
            guard bytes.count >= start + byteCount, let told = USBIFSpeed(rawValue: bytes[start]) else {
                return USBPortMemory()
            }
            var port = USBPortMemory()
            port.told = told
            port.address = bytes[start + 1] & 0x7F
            port.isUsed = bytes[start + 2] != 0
            port.configuration = bytes[start + 3]
            port.alternates = Array(bytes[start + 4..<start + 4 + interfaces])
            let remainders = start + 4 + interfaces
            port.remainders = UInt16(bytes[remainders]) | UInt16(bytes[remainders + 1]) << 8
            for shift in 0..<8 { port.identity |= UInt64(bytes[start + identityOffset + shift]) << UInt64(8 * shift) }
            return port
        }
    }
}
