// The host's card as the policy sees it: registers of pciif.h's numbering, errors of pciif.h's words.

internal import BackendCore
internal import HostIO
internal import HostPCI
internal import XenWire

/// One operation's accesses to one card.
///
/// When the host fails, the guest is told a number; the words are kept for the log.
final class PCICardAccess: PCIConfigurationDevice {
    private let card: any OpenPCICard
    /// What went wrong on the host's side, if anything did.
    private(set) var failure: HostFailure?

    init(_ card: any OpenPCICard) { self.card = card }

    func read(_ register: PCIRegister) throws(PCIError) -> UInt32 {
        try attempt(register) { () throws(HostFailure) in try card.read(register.size, at: register.offset) }
    }

    func write(_ value: UInt32, to register: PCIRegister) throws(PCIError) {
        try attempt(register) { () throws(HostFailure) in try card.write(value, register.size, at: register.offset) }
    }

    func enter(_ state: PCIPowerState) throws(PCIError) {
        try attempt(nil) { () throws(HostFailure) in try card.enter(powerState: state.rawValue) }
    }

    /// Whether the card answers to its memory addresses.
    func decodesMemory() throws(PCIError) -> Bool {
        try attempt(nil) { () throws(HostFailure) in try card.decodesMemory() }
    }

    private func attempt<Result>(
        _ register: PCIRegister?,
        _ body: () throws(HostFailure) -> Result
    ) throws(PCIError) -> Result {
        if let register, register.range.upperBound > card.original.bytes.count { throw .invalidOffset }
        do throws(HostFailure) { return try body() } catch {
            switch error.kind {
            case .notFound: throw .deviceNotFound
            case .invalid: throw .invalidOffset
            case .busy, .denied, .host:
                failure = error
                throw .operationFailed
            }
        }
    }
}
