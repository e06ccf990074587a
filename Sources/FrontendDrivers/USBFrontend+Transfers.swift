// What a USB frontend can be asked to do while it is connected: URBs put into the ring, awaited, taken back.

internal import Hypervisor
public import SharedRing
public import XenWire

extension USBFrontend {
    /// Puts an URB into the ring; waits for a free one of the sixteen places, not for the answer.
    /// - Parameters:
    ///   - pages: data to send, from `offset` on; not looked at when data are received.
    /// - Returns: what `outcome(of:)` waits for, which must be called once for it: its place stays taken until then.
    public func submit(
        _ urb: FrontURB,
        from pages: PrivatePages? = nil,
        at offset: Int = 0
    ) async throws(FrontendFailure) -> URBTicket {
        guard connection != nil, let urbs else { throw .closed }
        return try await urbs.submit(urb, pages, at: offset)
    }

    /// The same with the data in an array.
    public func submit(_ urb: FrontURB, _ bytes: [UInt8]) async throws(FrontendFailure) -> URBTicket {
        guard !bytes.isEmpty else { return try await submit(urb) }
        let pages = try privatePages(bytes.count)
        pages.write(bytes, at: 0)
        return try await submit(urb, from: pages)
    }

    /// Waits for an URB and takes its data.
    /// - Parameter pages: where data received go, from `offset` on.
    /// - Returns: the response, whatever its status, and what the frame descriptors say.
    public func finish(
        _ ticket: URBTicket,
        into pages: PrivatePages? = nil,
        at offset: Int = 0
    ) async throws(FrontendFailure) -> (response: URBResponse, packets: [URBOutcome.Packet]) {
        guard let urbs else { throw .closed }
        let response = try await urbs.wait(for: ticket)
        return (response, urbs.fetch(ticket, response, pages, at: offset))
    }

    /// The same with the data in an array.
    public func outcome(of ticket: URBTicket) async throws(FrontendFailure) -> URBOutcome {
        guard let urbs, let urb = urbs.urb(of: ticket) else { throw .closed }
        guard urb.byteCount > 0, urb.pipe.direction == .in else {
            let (response, packets) = try await finish(ticket)
            return URBOutcome(response: response, packets: packets, bytes: [])
        }
        let pages = try privatePages(urb.byteCount)
        let (response, packets) = try await finish(ticket, into: pages)
        let count = packets.isEmpty ? min(urb.byteCount, Int(response.byteCount)) : urb.byteCount
        let slot = pages.slot(at: 0, byteCount: count)
        return URBOutcome(response: response, packets: packets, bytes: (0..<count).map { slot.u8($0) })
    }

    /// Sends an URB and waits for it.
    public func perform(_ urb: FrontURB, _ bytes: [UInt8] = []) async throws(FrontendFailure) -> URBOutcome {
        try await outcome(of: try await submit(urb, bytes))
    }

    /// Takes an URB back: both the unlink and the URB are answered, and the URB still has to be awaited.
    /// - Returns: the answer to the unlink, which xen-hcd does not look at.
    @discardableResult
    public func unlink(_ ticket: URBTicket) async throws(FrontendFailure) -> URBStatus {
        guard connection != nil, let urbs else { throw .closed }
        guard let pipe = urbs.urb(of: ticket)?.pipe else { return .notFound }
        return try await unlink(id: ticket.id, pipe)
    }

    /// Sends an unlink of any id through any pipe.
    @discardableResult
    public func unlink(id: UInt16, _ pipe: USBPipe) async throws(FrontendFailure) -> URBStatus {
        guard connection != nil, let urbs else { throw .closed }
        return try await finish(try await urbs.unlink(id, pipe)).response.status
    }

    /// What the controller counted since it was connected; nil while it is not.
    public var statistics: USBFrontendStatistics? { urbs?.statistics }

    private func privatePages(_ count: Int) throws(FrontendFailure) -> PrivatePages {
        do { return try PrivatePages(byteCount: count) } catch {
            throw .hypervisor(HypervisorFailure("allocate a buffer", error))
        }
    }
}
