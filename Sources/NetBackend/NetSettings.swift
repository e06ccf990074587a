// What a frontend set once for its whole card, and how a successor remembers it.

internal import SharedRing
internal import XenWire

/// Multicast addresses and hash settings of one connection.
///
/// Kept in the journal as bytes: algorithm, types, bytes of the key, entries of the mapping, addresses (five 32-bit
/// numbers), then the key in 40 bytes, 128 entries of 4 bytes, 64 addresses of 8.
struct NetSettings {
    var filter = MulticastFilter()
    var hash = HashSettings()
    /// As the frontend sent it.
    var key: [UInt8] = []

    private static let headBytes = 20
    private static let keyBytes = 40
    private static let mappingStart = headBytes + keyBytes
    private static let filterStart = mappingStart + HashSettings.maxMapping * 4
    /// Room in the journal.
    static let byteCount = filterStart + MulticastFilter.capacity * 8

    init() {}

    var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: NetSettings.byteCount)
        func put(_ number: UInt64, at offset: Int, count: Int) {
            for index in 0..<count { bytes[offset + index] = UInt8(truncatingIfNeeded: number >> UInt64(8 * index)) }
        }
        put(UInt64(hash.algorithm.rawValue), at: 0, count: 4)
        put(UInt64(hash.types.rawValue), at: 4, count: 4)
        put(UInt64(key.count), at: 8, count: 4)
        put(UInt64(hash.mapping.count), at: 12, count: 4)
        put(UInt64(filter.addresses.count), at: 16, count: 4)
        for (index, byte) in key.prefix(NetSettings.keyBytes).enumerated() {
            bytes[NetSettings.headBytes + index] = byte
        }
        for (index, queue) in hash.mapping.enumerated() {
            put(UInt64(queue), at: NetSettings.mappingStart + 4 * index, count: 4)
        }
        for (index, address) in filter.addresses.enumerated() {
            put(address.rawValue, at: NetSettings.filterStart + 8 * index, count: 6)
        }
        return bytes
    }

    /// Replays the requests that lead to these settings, so that nothing from the journal goes unchecked.
    init(remembered bytes: [UInt8], queues: Int) {
        guard bytes.count == NetSettings.byteCount, let pages = try? PrivatePages(byteCount: bytes.count) else {
            return
        }
        pages.write(bytes, at: 0)
        let all = pages.slot(at: 0, byteCount: bytes.count)
        let keyCount = min(all.u32(8), UInt32(NetSettings.keyBytes))
        let mappingCount = min(all.u32(12), UInt32(HashSettings.maxMapping))
        func ask(_ type: ControlType, _ first: UInt32, _ second: UInt32 = 0, _ start: Int = 0, _ count: Int = 0) {
            let request = ControlRequest(id: 0, type: type, first, second)
            guard case .copy = hash.plan(request, queues: queues) else { return }
            _ = hash.finish(request, bytes: pages.slot(at: start, byteCount: count), queues: queues)
        }
        ask(.setHashAlgorithm, all.u32(0))
        ask(.setHashFlags, all.u32(4))
        ask(.setHashKey, 0, keyCount, NetSettings.headBytes, Int(keyCount))
        key = Array(bytes[NetSettings.headBytes..<NetSettings.headBytes + Int(keyCount)])
        ask(.setHashMappingSize, mappingCount)
        ask(.setHashMapping, 0, mappingCount, NetSettings.mappingStart, 4 * Int(mappingCount))
        for index in 0..<min(Int(all.u32(16)), MulticastFilter.capacity) {
            _ = filter.add(MACAddress(all, at: NetSettings.filterStart + 8 * index))
        }
    }
}
