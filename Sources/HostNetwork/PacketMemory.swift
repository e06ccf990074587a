// Memory for the packets of one turn, shared by all plain ports of a loop: between two turns nobody owns it.

internal import SharedRing
public import SystemPackage

/// Frames, headers and the batch of a turn. Used on one thread.
public final class PacketMemory: @unchecked Sendable {
    /// Packets of one turn.
    public static let packets = 64
    /// Bytes of frames after which a turn takes no further packet from a frontend, so that a queue with large packets
    /// gets no more of the loop's time than its neighbours with small ones.
    static let turnBytes = 256 * 1024
    /// Room for the largest frame, in whole pages: 65535 bytes behind an Ethernet header with two VLAN tags.
    static let frameBytes = 17 * 4096
    /// Room for a header.
    static let headerStride = 16

    /// Becomes resident as it is used: an idle card touches a few pages.
    let frames: PrivatePages
    let headers: PrivatePages
    var batch: PacketBatch
    /// Bytes of `frames` that this turn has placed.
    var cursor = 0

    /// - Throws: `ENOMEM`.
    public init() throws(Errno) {
        frames = try PrivatePages(byteCount: PacketMemory.packets * PacketMemory.frameBytes)
        headers = try PrivatePages(byteCount: PacketMemory.packets * PacketMemory.headerStride)
        batch = try PacketBatch(
            packets: PacketMemory.packets,
            runs: PacketMemory.packets * PacketBatch.runsPerPacket
        )
    }
}
