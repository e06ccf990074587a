// The second operation of the page: the guest's driver is told of an error of its card, and says what it makes of it.

internal import BackendCore
internal import HostPCI
internal import SharedRing
internal import XenWire

/// What waits to be told, and what was told and has no answer yet.
struct PCIErrorReports: Sendable {
    /// Of a card that reports errors without end the guest hears the latest only.
    static let limit = 16

    private(set) var telling: PCIErrorOperation?
    private var waiting: [PCIErrorOperation] = []

    mutating func add(_ report: PCIErrorOperation) {
        if waiting.count == PCIErrorReports.limit { waiting.removeFirst() }
        waiting.append(report)
    }

    /// The next one, if none is being told.
    mutating func next() -> PCIErrorOperation? {
        guard telling == nil, !waiting.isEmpty else { return nil }
        telling = waiting.removeFirst()
        return telling
    }

    mutating func answered() { telling = nil }
    mutating func forget() { self = PCIErrorReports() }
}

extension PCIQueue {
    /// The kernel recovers a card from an error by itself and does not ask the guest. So the guest's driver is told
    /// what happened, and its answer only goes to the log.
    /// - Returns: whether the card is one of the guest's.
    func reported(_ event: PCIErrorEvent) -> Bool {
        guard let address = try? PCIAddress(key: "\(event.address)"), let guest = bus.guest(of: address) else {
            return false
        }
        metrics.errorReports &+= 1
        let report =
            switch event.step {
            case .began: PCIErrorOperation(.errorDetected, .normal, guest)
            case .succeeded: PCIErrorOperation(.errorResume, .normal, guest)
            case .failed: PCIErrorOperation(.errorDetected, .failed, guest)
            }
        errors.add(report)
        tellErrors()
        return true
    }

    /// Writes the next report into the page, if the frontend takes part and has answered the last one.
    func tellErrors() {
        guard let page, page.loadAcquire(at: PCIWire.flagsOffset) & PCIWire.errorHandler != 0,
            let report = errors.next()
        else { return }
        let slot = operation.slot(at: PCIQueue.errorScratch, byteCount: PCIWire.errorOperationSize)
        report.encode(into: slot)
        page.copyIn(
            at: PCIWire.errorOperationOffset,
            count: PCIWire.errorOperationSize,
            from: operation,
            at: PCIQueue.errorScratch
        )
        page.setBits(PCIWire.backendActive, at: PCIWire.flagsOffset)
        notifyFrontend()
    }

    /// - Returns: whether the frontend has answered the report that it was told.
    func takeErrorAnswer(_ page: SharedPages) -> Bool {
        guard let told = errors.telling, page.loadAcquire(at: PCIWire.flagsOffset) & PCIWire.backendActive == 0 else {
            return false
        }
        page.copyOut(
            at: PCIWire.errorOperationOffset,
            count: PCIWire.errorOperationSize,
            to: operation,
            at: PCIQueue.errorScratch
        )
        let slot = operation.slot(at: PCIQueue.errorScratch, byteCount: PCIWire.errorOperationSize)
        let answer = PCIErrorOperation.recovery(slot)
        log.remark(
            "its driver was told of \(told.command) of \(told.address), and says \(answer.map { "\($0)" } ?? "nothing")"
        )
        errors.answered()
        tellErrors()
        return true
    }

    /// Where in private memory a report is put together.
    private static var errorScratch: Int { 2048 }
}
