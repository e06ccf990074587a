// One card that was taken: its configuration space, its power states, and its state before a guest had it.

internal import CLinux
internal import Glibc
public import HostIO
public import SystemPackage

/// A card with one owner, until the last reference is gone or the process dies. Calls may block: off the loops.
public final class PCICard: Sendable {
    /// As they were when the card was taken.
    public let facts: PCIDeviceFacts
    /// The space as it was then, with what it had found.
    public let original: PCIConfigurationBytes
    private let space: OpenFile
    private let lock: OpenFile

    /// Takes a card that is hidden, or of which nobody of the host cares.
    /// - Parameters:
    ///   - owner: who has it, for the message that others get: `backend/pci/7/0`.
    ///   - locks: a folder of the service's, the same for all of it.
    /// - Throws: `.notFound` if it is gone, `.busy` naming who has it, `.denied` for a bridge or without the right to
    ///   see more than 64 bytes of its space, `.host` for what the kernel says.
    public init(_ address: PCIBusAddress, in tree: PCITree, owner: String, locks: FilePath) throws(HostFailure) {
        let facts = try tree.device(address)
        let original = try tree.configuration(of: address)
        guard !facts.isBridge, original.headerType == 0 else {
            throw HostFailure(.denied, "\(address) is a bridge, or says it is: it is not given away")
        }
        guard original.bytes.count >= 256 else {
            throw HostFailure(
                .denied,
                "only 64 bytes of \(address)'s configuration space can be read: CAP_SYS_ADMIN is needed"
            )
        }
        lock = try PCICard.lock(address, owner, locks)
        let path = tree.directory(address).appending("config")
        do throws(Errno) { space = try OpenFile(path: path.string, flags: O_RDWR) } catch {
            throw HostFailure(.host, "\(path) cannot be opened: \(error)")
        }
        self.facts = facts
        self.original = original
    }

    deinit { _ = ftruncate(lock.descriptor, 0) }

    /// The lock is the open file's (fcntl(2), F_OFD_SETLK): the kernel drops it with the process. Files stay; they are
    /// few.
    private static func lock(
        _ address: PCIBusAddress,
        _ owner: String,
        _ locks: FilePath
    ) throws(HostFailure) -> OpenFile {
        let path = locks.appending("\(address)")
        let file: OpenFile
        do throws(Errno) {
            try Files.makeDirectory(locks, permissions: [.ownerReadWriteExecute])
            file = try OpenFile(path: path.string, flags: O_RDWR | O_CREAT)
        } catch {
            throw HostFailure(.host, "\(path) cannot be made: \(error)")
        }
        let status = linux_lock_open_file(file.descriptor, 1)
        if status == EAGAIN || status == EACCES {
            let bytes = (try? Files.contents(of: FileDescriptor(rawValue: file.descriptor), limit: 512)) ?? []
            let holder = String(decoding: bytes.prefix { $0 != 0x0a }, as: UTF8.self)
            throw HostFailure(
                .busy,
                "\(address) belongs to \(holder.isEmpty ? "another owner" : holder); detach it there first"
            )
        }
        if status != 0 { throw HostFailure(.host, "\(path) cannot be locked: \(Errno(rawValue: status))") }
        _ = ftruncate(file.descriptor, 0)
        try? Files.write("\(owner) (pid \(getpid()))\n", to: file)
        return file
    }

    /// Bytes of the space: 256, or 4096 of a PCI Express card.
    public var byteCount: Int { original.bytes.count }

    /// Reads 1, 2 or 4 bytes, as one access.
    /// - Parameter offset: a multiple of `count`.
    /// - Throws: `.invalid` beyond the space, `.notFound` if the card is gone, `.host` for what the kernel says.
    public func read(_ count: Int, at offset: Int) throws(HostFailure) -> UInt32 {
        try check(count, offset)
        var value: UInt32 = 0
        // SAFETY: the kernel writes at most `count` bytes, at most the four of a local, during the call.
        let done = unsafe withUnsafeMutableBytes(of: &value) {
            unsafe pread(space.descriptor, $0.baseAddress, count, off_t(offset))
        }
        try check(done, of: count, "read")
        return UInt32(littleEndian: value)
    }

    /// Writes 1, 2 or 4 bytes, as one access.
    public func write(_ value: UInt32, _ count: Int, at offset: Int) throws(HostFailure) {
        try check(count, offset)
        var value = value.littleEndian
        // SAFETY: the kernel reads `count` bytes, at most the four of a local, during the call.
        let done = unsafe withUnsafeMutableBytes(of: &value) {
            unsafe pwrite(space.descriptor, $0.baseAddress, count, off_t(offset))
        }
        try check(done, of: count, "written")
    }

    private func check(_ count: Int, _ offset: Int) throws(HostFailure) {
        guard [1, 2, 4].contains(count), offset >= 0, offset % count == 0, offset <= byteCount - count else {
            throw HostFailure(.invalid, "\(facts.address) has no \(count) bytes at \(offset)")
        }
    }

    private func check(_ done: Int, of count: Int, _ what: String) throws(HostFailure) {
        if done == count { return }
        let error = Errno(rawValue: errno)
        // sysfs's file of a card that was pulled out has no bytes any more.
        let isGone = done >= 0 || error == .operationNotSupportedByDevice
        if isGone { throw HostFailure(.notFound, "\(facts.address) is gone") }
        throw HostFailure(.host, "\(facts.address)'s configuration space cannot be \(what): \(error)")
    }
}

extension PCICard {
    private static let command = 0x04
    private static let busMaster: UInt32 = 0x0004

    /// Lets the card, or does not let it, reach memory. Without a change nothing is written.
    public func setBusMaster(_ isOn: Bool) throws(HostFailure) {
        let old = try read(2, at: PCICard.command)
        let new = isOn ? old | PCICard.busMaster : old & ~PCICard.busMaster
        if new != old { try write(new, 2, at: PCICard.command) }
    }

    /// Puts the card into a power state, and waits as long as the specification lets it take (PCI Power Management 1.2,
    /// table 5-6). A card that forgets on its way from D3hot (No_Soft_Reset is 0) is told its addresses again.
    /// - Parameter state: 0 … 3. Whether the card has it, and whether it may be entered from here, the caller knows.
    /// - Throws: `.denied` without the capability, `.host` if the card does not follow.
    public func enter(powerState state: UInt8) throws(HostFailure) {
        let id = PCICapability.powerManagement
        guard let capability = original.capabilities.first(where: { $0.id == id && !$0.isExtended }),
            capability.offset + 6 <= byteCount
        else { throw HostFailure(.denied, "\(facts.address) has no power states") }
        let register = capability.offset + 4
        let old = try read(2, at: register)
        // Written as 1 the PME status would be cleared; it is not ours.
        try write(old & ~0x8003 | UInt32(state & 3), 2, at: register)
        let isDeep = old & 3 == 3 || state == 3
        if isDeep { usleep(10_000) } else if old & 3 == 2 || state == 2 { usleep(200) }
        let new = try read(2, at: register)
        guard new & 3 == UInt32(state & 3) else {
            throw HostFailure(.host, "\(facts.address) stays in D\(new & 3), where D\(state) was asked for")
        }
        if old & 3 == 3, state == 0, old & 0x8 == 0 { try restore() }
    }

    /// Restores what no driver sets by itself: addresses, cache line, latency, COMMAND. Nothing else that a reset or a
    /// guest did to the card matters to the host or the next guest.
    ///
    /// COMMAND is written last, without bus mastering: the card must not answer at wrong addresses, and must not write
    /// to any.
    /// - Parameter header: what it was, if it is not what it was when it was taken: of a card that a guest had already.
    public func restore(to header: PCIConfigurationBytes? = nil) throws(HostFailure) {
        let bytes = (header ?? original).bytes
        guard bytes.count >= 0x40 else { throw HostFailure(.invalid, "a header has 64 bytes, not \(bytes.count)") }
        for offset in stride(from: 0x10, to: 0x28, by: 4) { try restore(4, at: offset, bytes) }
        try restore(4, at: 0x30, bytes)
        for offset in [0x0C, 0x0D, 0x3C] { try restore(1, at: offset, bytes) }
        let saved = UInt32(bytes[PCICard.command]) | UInt32(bytes[PCICard.command + 1]) << 8
        try write(saved & ~PCICard.busMaster, 2, at: PCICard.command)
    }

    /// Before the reset of a card that somebody left behind: it must reach nothing any more, and its pin is switched on
    /// again.
    func prepareReset() throws(HostFailure) {
        let lineOff: UInt32 = 0x0400
        let old = try read(2, at: PCICard.command)
        let new = old & ~(PCICard.busMaster | lineOff)
        if new != old { try write(new, 2, at: PCICard.command) }
    }

    private func restore(_ count: Int, at offset: Int, _ bytes: [UInt8]) throws(HostFailure) {
        let saved = bytes[offset..<offset + count].reversed().reduce(0) { $0 << 8 | UInt32($1) }
        if try read(count, at: offset) != saved { try write(saved, count, at: offset) }
    }
}
