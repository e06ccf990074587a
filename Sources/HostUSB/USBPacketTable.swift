// The packets of isochronous transfers: what was asked for, and the results.

/// One packet of an isochronous transfer.
public struct USBPacket: Hashable, Sendable {
    /// Bytes of the transfer's range; the next packet's begin behind them, however many were moved.
    public var byteCount: UInt32
    /// Bytes moved.
    public var actualByteCount: UInt32
    public var status: USBStatus

    public init(byteCount: UInt32 = 0, actualByteCount: UInt32 = 0, status: USBStatus = .completed) {
        self.byteCount = byteCount
        self.actualByteCount = actualByteCount
        self.status = status
    }
}

/// Rows of packets, one row for each slot of a device. Used on the device's loop.
///
/// The owner sets `byteCount`s before it submits the slot, the device fills in the rest before it delivers the result.
@safe
public final class USBPacketTable: @unchecked Sendable {
    // SAFETY: belongs to the loop of the device that it was made for, as the device itself does.
    private var packets: ContiguousArray<USBPacket>
    /// Packets in a row.
    public let limit: Int
    /// Rows.
    public let slots: Int

    /// - Parameters:
    ///   - slots: rows.
    ///   - limit: packets in each.
    public init(slots: Int, limit: Int) {
        precondition(slots >= 0 && limit >= 0)
        self.slots = slots
        self.limit = limit
        packets = ContiguousArray(repeating: USBPacket(), count: slots * limit)
    }

    /// The packet at `index`, below `limit`, of a slot's transfer.
    public subscript(slot: UInt32, index: Int) -> USBPacket {
        get { packets[position(slot, index)] }
        set { packets[position(slot, index)] = newValue }
    }

    /// Marks the first packets of a row as not transferred, which holds unless the device says otherwise.
    package func forget(_ slot: UInt32, count: Int) {
        for index in 0..<count {
            packets[position(slot, index)].actualByteCount = 0
            packets[position(slot, index)].status = .transactionError
        }
    }

    private func position(_ slot: UInt32, _ index: Int) -> Int {
        precondition(Int(slot) < slots && index >= 0 && index < limit)
        return Int(slot) &* limit &+ index
    }
}
