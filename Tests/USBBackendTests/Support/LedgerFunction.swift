// A device that keeps a ledger: what it sent and took, each with a number of its own, so that nothing can be made up.

internal import HostUSB
internal import SimulatedHost
internal import Synchronization

/// Endpoints 0x81 and 0x02 bulk, 0x83 interrupt; vendor requests 1 (answered) and 2 (which may hang) on endpoint 0.
///
/// Every transfer to the host has a serial number; each of its words of 4 bytes is that number (upper half) and the word's
/// place. Every transfer from the host begins with a tag.
final class LedgerFunction: SimulatedFunction {
    /// Since the last `begin`.
    struct Ledger: Sendable {
        /// Bytes sent, by serial number.
        var sent: [UInt32: Int] = [:]
        var taken: Set<UInt32> = []
        /// The interrupt endpoint and request 2 say nothing.
        var hangs = false
    }
    /// A bulk transfer for more than this is answered with `shortBytes`.
    static let longBytes = 8192
    static let shortBytes = 5000

    let strings = SimulatedStrings(product: "Ledger")
    let speed = USBSpeed.high
    let descriptors = USBDescriptors(
        device: [18, 1, 0, 2, 0xFF, 0, 0, 64, 0x25, 0x05, 0xA0, 0xA4, 0, 1, 1, 2, 0, 1],
        configurations: [
            [9, 2, 39, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 3, 0xFF, 0, 0, 0]
                + [7, 5, 0x81, 2, 0, 2, 0, 7, 5, 0x02, 2, 0, 2, 0, 7, 5, 0x83, 3, 8, 0, 4]
        ]
    )
    private let state = Mutex((ledger: Ledger(), serial: UInt32(0)))

    var ledger: Ledger { state.withLock { $0.ledger } }

    /// An empty ledger, for a new life.
    func begin(hangs: Bool) { state.withLock { $0.ledger = Ledger(hangs: hangs) } }

    func control(_ setup: USBSetup, _ data: SimulatedBytes) -> SimulatedAnswer {
        setup.request == 2 && ledger.hangs ? .wait : send(data, data.count)
    }

    func transfer(endpoint: UInt8, _ data: SimulatedBytes) -> SimulatedAnswer {
        switch endpoint {
        case 0x81: return send(data, data.count > LedgerFunction.longBytes ? LedgerFunction.shortBytes : data.count)
        case 0x83: return ledger.hangs ? .wait : send(data, data.count)
        default:
            var tag: UInt32 = 0
            for place in 0..<min(4, data.count) { tag |= UInt32(data.byte(place)) << UInt32(8 * place) }
            let word = tag
            state.withLock { _ = $0.ledger.taken.insert(word) }
            return .moved(data.count)
        }
    }

    private func send(_ data: SimulatedBytes, _ count: Int) -> SimulatedAnswer {
        let serial = state.withLock { state in
            state.serial += 1
            state.ledger.sent[state.serial] = count
            return state.serial
        }
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count + 3)
        for place in 0..<UInt32((count + 3) / 4) {
            let word = serial << 16 | place
            for shift in [0, 8, 16, 24] as [UInt32] { bytes.append(UInt8(truncatingIfNeeded: word >> shift)) }
        }
        return data.fill(Array(bytes.prefix(count)))
    }
}
