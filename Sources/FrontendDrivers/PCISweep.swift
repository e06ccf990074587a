// Writes every byte of a card's configuration space with four patterns: what a hostile guest would try first.

public import XenWire

/// A sweep over one card's space.
public struct PCISweep: Sendable {
    /// Each register gets all of them, one after the other.
    public static let patterns: [UInt32] = [0, .max, 0x5555_5555, 0xAAAA_AAAA]

    public struct Report: Hashable, Sendable {
        public var writes = 0
        /// Writes that were refused, by their error.
        public var refused: [Int32: Int] = [:]
        /// Offsets of bytes that the guest reads differently afterwards.
        public var changed: [Int] = []
    }

    private let frontend: PCIFrontend
    private let card: PCIAddress

    /// - Parameter card: as the guest sees it.
    public init(_ frontend: PCIFrontend, _ card: PCIAddress) {
        self.frontend = frontend
        self.card = card
    }

    /// - Parameter size: of each write: 1, 2 or 4.
    public func run(size: Int32) async throws(FrontendFailure) -> Report {
        var report = Report()
        let before = try await space()
        for offset in stride(from: 0, to: Int32(PCIRegister.spaceSize), by: Int(size)) {
            for pattern in PCISweep.patterns {
                report.writes += 1
                do throws(FrontendFailure) { try await frontend.write(pattern, to: card, offset, size) } catch {
                    guard case .pci(let refusal) = error else { throw error }
                    report.refused[refusal.rawValue, default: 0] += 1
                }
            }
        }
        let after = try await space()
        report.changed = before.indices.filter { before[$0] != after[$0] }
        return report
    }

    /// The space as the guest reads it; bytes that it may not read are 0.
    public func space() async throws(FrontendFailure) -> [UInt8] {
        var bytes: [UInt8] = []
        for offset in stride(from: 0, to: Int32(PCIRegister.spaceSize), by: 4) {
            var value: UInt32 = 0
            do throws(FrontendFailure) { value = try await frontend.read(card, offset, 4) } catch {
                guard case .pci = error else { throw error }
            }
            for shift in 0..<4 { bytes.append(UInt8(truncatingIfNeeded: value >> UInt32(8 * shift))) }
        }
        return bytes
    }
}
