// The memory of a controller's transfers: a place for each URB the ring can hold.

internal import BackendCore
internal import SharedRing
internal import SystemPackage
internal import XenWire

/// Frame descriptors, setup packet and data of each slot, in one arena for all devices of the controller; resident as
/// it is used. Setup and data are adjacent, as the host wants them.
struct USBBuffers: Sendable {
    private static let frameBytes = USBWire.maxPackets * USBWire.packetDescriptorSize
    // One page more than an URB can have, for what a device sends beyond that.
    private static let stride = frameBytes + USBWire.pageSize + USBWire.maxBytes + USBWire.pageSize
    private static let scratchStart = USBWire.urbSlots * stride
    private static let connectionStart = scratchStart + USBWire.maxBytes

    let pages: PrivatePages

    init() throws(BackendFailure) {
        do throws(Errno) {
            pages = try PrivatePages(byteCount: USBBuffers.connectionStart + USBWire.pageSize)
        } catch {
            throw BackendFailure(.host, "no memory for transfers: \(error)")
        }
    }

    /// Where a slot's frame descriptors begin.
    static func frames(_ slot: Int) -> Int { slot &* stride }
    /// Where its data begin, a page.
    static func data(_ slot: Int) -> Int { slot &* stride &+ frameBytes &+ USBWire.pageSize }
    /// Where its setup packet begins.
    static func setup(_ slot: Int) -> Int { data(slot) &- setupBytes }
    static let setupBytes = 8
    /// Scratch space to rearrange data in.
    static var scratch: Int { scratchStart }

    /// A slot's frame descriptors.
    func frames(_ slot: Int, byteCount: Int) -> Slot { pages.slot(at: USBBuffers.frames(slot), byteCount: byteCount) }
    /// One request of the connection ring.
    var connection: Slot { pages.slot(at: USBBuffers.connectionStart, byteCount: USBWire.connectionStride) }
}
