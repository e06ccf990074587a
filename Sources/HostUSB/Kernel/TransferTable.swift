// libusb's transfers, one per slot, allocated once.

internal import CUSB
internal import HostIO
internal import SharedRing

/// The transfers of one open device. Used on its loop. They must be freed before the handle, which they refer to.
///
/// libusb itself allocates the kernel's view of a transfer (struct usbfs_urb) each time it is submitted.
@safe
final class TransferTable {
    /// What a callback finds in `user_data`.
    private struct Record {
        unowned(unsafe) let device: KernelDevice
        let slot: UInt32
    }
    // SAFETY: `count` records and as many transfers, allocated in init and freed in deinit. The device owns the table and lets
    // it go when all transfers have ended, so that a record's device is alive in every callback.
    private let records: UnsafeMutablePointer<Record>
    private let transfers: UnsafeMutablePointer<UnsafeMutablePointer<libusb_transfer>>
    private let count: Int
    private let handle: USBHandle

    init(slots: Int, packets: Int, of handle: USBHandle, for device: KernelDevice) throws(HostFailure) {
        self.handle = handle
        unsafe records = .allocate(capacity: slots)
        unsafe transfers = .allocate(capacity: slots)
        var made = 0
        while made < slots, let transfer = unsafe libusb_alloc_transfer(CInt(clamping: packets)) {
            unsafe (records + made).initialize(to: Record(device: device, slot: UInt32(made)))
            unsafe handle.adopt(transfer)
            unsafe transfer.pointee.callback = TransferTable.transferEnded
            unsafe transfer.pointee.user_data = UnsafeMutableRawPointer(records + made)
            unsafe (transfers + made).initialize(to: transfer)
            made += 1
        }
        count = made
        if made < slots { throw HostFailure(.host, "no memory for \(slots) transfers of \(packets) packets") }
    }

    deinit {
        for slot in 0..<count { unsafe libusb_free_transfer(transfers[slot]) }
        unsafe records.deallocate()
        unsafe transfers.deallocate()
    }

    private func transfer(_ slot: UInt32) -> UnsafeMutablePointer<libusb_transfer> {
        precondition(Int(slot) < count)
        return unsafe transfers[Int(slot)]
    }

    /// - Returns: 0 or libusb's code; then there will be no callback.
    func submit(_ transfer: USBTransfer, _ slot: UInt32, _ pages: PrivatePages, _ packets: USBPacketTable) -> CInt {
        let target = unsafe self.transfer(slot)
        // The values are those of USB 2.0, 9.6.6, as the kernel and libusb use them.
        unsafe target.pointee.type = transfer.kind.rawValue
        unsafe target.pointee.endpoint = transfer.kind == .control ? 0 : transfer.endpoint
        unsafe target.pointee.flags = 0
        // No timeout: the owner cancels a transfer that takes too long.
        unsafe target.pointee.timeout = 0
        unsafe target.pointee.length = CInt(clamping: transfer.byteCount)
        // SAFETY: the device holds the pages until all transfers have ended.
        let memory = unsafe pages.unsafeAddress(at: transfer.offset, count: transfer.byteCount)
        unsafe target.pointee.buffer = memory.assumingMemoryBound(to: UInt8.self)
        unsafe target.pointee.num_iso_packets = 0
        if transfer.kind == .isochronous {
            unsafe target.pointee.num_iso_packets = CInt(clamping: transfer.packetCount)
            for index in 0..<transfer.packetCount {
                // SAFETY: the transfer was made for as many packets as the plan allows, which was checked.
                unsafe usb_set_packet_length(target, CInt(index), packets[slot, index].byteCount)
            }
        }
        return unsafe libusb_submit_transfer(target)
    }

    func cancel(_ slot: UInt32) { _ = unsafe libusb_cancel_transfer(transfer(slot)) }

    /// How a transfer ended, and the bytes that it moved.
    func result(_ slot: UInt32) -> (status: USBStatus, byteCount: Int) {
        let transfer = unsafe transfer(slot)
        return unsafe (TransferTable.status(transfer.pointee.status), Int(max(0, transfer.pointee.actual_length)))
    }

    /// Copies the packets' results.
    /// - Returns: the sum of the bytes moved.
    func readPackets(_ slot: UInt32, _ packetCount: Int, into table: USBPacketTable) -> Int {
        let transfer = unsafe transfer(slot)
        var total = 0
        for index in 0..<packetCount {
            var packet = table[slot, index]
            // SAFETY: as in `submit`.
            let status = unsafe usb_packet_status(transfer, CInt(index))
            packet.status = TransferTable.status(libusb_transfer_status(rawValue: UInt32(truncatingIfNeeded: status)))
            packet.actualByteCount = min(packet.byteCount, unsafe usb_packet_actual_length(transfer, CInt(index)))
            table[slot, index] = packet
            total &+= Int(packet.actualByteCount)
        }
        return total
    }

    static func status(_ status: libusb_transfer_status) -> USBStatus {
        switch status {
        case LIBUSB_TRANSFER_COMPLETED: .completed
        case LIBUSB_TRANSFER_TIMED_OUT: .timeout
        case LIBUSB_TRANSFER_CANCELLED: .cancelled
        case LIBUSB_TRANSFER_STALL: .stall
        case LIBUSB_TRANSFER_NO_DEVICE: .noDevice
        case LIBUSB_TRANSFER_OVERFLOW: .overflow
        default: .transactionError
        }
    }

    /// Called by libusb from within `USBHandle.pump`, on the device's loop.
    private static let transferEnded: libusb_transfer_cb_fn = { transfer in
        // SAFETY: libusb passes the transfer that `init` gave a record of this table.
        guard let transfer = unsafe transfer, let data = unsafe transfer.pointee.user_data else { return }
        let record = unsafe data.assumingMemoryBound(to: Record.self)
        unsafe record.pointee.device.ended(record.pointee.slot)
    }
}
