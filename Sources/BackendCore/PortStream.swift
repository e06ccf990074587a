// Event channel ports read and written through a loop's ring: two system calls fewer for each event.

internal import Glibc
internal import HostIO
internal import SharedRing
internal import XenWire

/// The file of an `EventChannels` that is a port stream. One read always waits in the ring; a port is unmasked by a write
/// that goes to the kernel with whatever the loop submits next, and is not heard of again. Used on the loop only.
final class PortStream {
    /// Ports that one read takes, so that who notifies without end does not keep the loop from everybody else (XSA-332),
    /// and ports that are unmasked from one read to the next without a call of their own.
    static let capacity = 64
    private static let portBytes = 4

    private let file: OpenFile
    private let loop: EventLoop
    private let target: TargetID
    /// Room for what is read, then a place for each write.
    private let pages: PrivatePages
    /// Writes since the last read. Those before it may not have gone to the kernel yet, those before the one before it
    /// have: hence twice as many places.
    private var unmasked = 0
    private var nextPlace = 0

    /// Begins to read; the result of that is the target's slot 0.
    /// - Returns: nil if there is no memory or no descriptor for it.
    init?(_ descriptor: CInt, loop: EventLoop, target: TargetID) {
        let own = fcntl(descriptor, F_DUPFD_CLOEXEC, 0)
        guard own >= 0, let pages = try? PrivatePages(byteCount: 3 * PortStream.capacity * PortStream.portBytes) else {
            return nil
        }
        (file, self.loop, self.target, self.pages) = (OpenFile(adopting: own), loop, target, pages)
        receive()
    }

    private func receive() {
        let room = IORuns.Run(offset: 0, byteCount: PortStream.capacity * PortStream.portBytes)
        loop.receive(file, into: pages, room, target: target, slot: 0)
    }

    /// Gives the ports of a read that brought `byteCount` bytes, then reads on.
    func take(_ byteCount: Int32, _ body: (EventChannelPort) -> Void) {
        unmasked = 0
        let count = min(Int(byteCount) / PortStream.portBytes, PortStream.capacity)
        for index in 0..<count {
            body(EventChannelPort(pages.slot(at: index * PortStream.portBytes, byteCount: PortStream.portBytes).u32(0)))
        }
        receive()
    }

    /// - Returns: false if it cannot be done in this way.
    func unmask(_ port: EventChannelPort) -> Bool {
        if unmasked == PortStream.capacity { return false }
        let offset = (PortStream.capacity + nextPlace) * PortStream.portBytes
        pages.slot(at: offset, byteCount: PortStream.portBytes).set32(port.rawValue, at: 0)
        guard loop.tell(file, from: pages, IORuns.Run(offset: offset, byteCount: PortStream.portBytes)) else {
            return false
        }
        unmasked += 1
        nextPlace = (nextPlace + 1) % (2 * PortStream.capacity)
        return true
    }
}
