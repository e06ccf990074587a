// File descriptors with an owner, and the few calls made on them here.

internal import CLinux
internal import Glibc
internal import SystemPackage

/// A descriptor that is closed with its last reference.
final class Descriptor: Sendable {
    let raw: CInt
    init(owning raw: CInt) { self.raw = raw }
    deinit { _ = Glibc.close(raw) }

    /// An eventfd, non-blocking.
    static func event() throws(Errno) -> Descriptor {
        try Descriptor(checking: eventfd(0, CInt(EFD_CLOEXEC) | CInt(EFD_NONBLOCK)))
    }

    /// Anonymous memory that can be passed to another process.
    static func memory(named name: String, byteCount: Int) throws(Errno) -> Descriptor {
        let memory = try Descriptor(checking: unsafe memfd_create(name, UInt32(MFD_CLOEXEC)))
        guard ftruncate(memory.raw, byteCount) == 0 else { throw Errno(rawValue: errno) }
        return memory
    }

    init(checking result: CInt) throws(Errno) {
        guard result >= 0 else { throw Errno(rawValue: errno) }
        raw = result
    }

    /// Adds one to an eventfd.
    func signal() { _ = eventfd_write(raw, 1) }

    /// Sets an eventfd back to 0.
    func drain() {
        var count: eventfd_t = 0
        _ = unsafe eventfd_read(raw, &count)
    }

    var isReadable: Bool { poll(for: POLLIN) & POLLIN != 0 }

    private func poll(for events: CInt) -> CInt {
        var entry = pollfd(fd: raw, events: Int16(events), revents: 0)
        return unsafe Glibc.poll(&entry, 1, 0) > 0 ? CInt(entry.revents) : 0
    }

    /// Waits until the other end of this socket is gone.
    func waitHungUp() {
        var entry = pollfd(fd: raw, events: 0, revents: 0)
        while unsafe Glibc.poll(&entry, 1, -1) <= 0 {}
    }

    /// Waits until one of `descriptors` is readable.
    static func waitReadable(_ descriptors: [Descriptor]) {
        var entries = descriptors.map { pollfd(fd: $0.raw, events: Int16(POLLIN), revents: 0) }
        _ = unsafe Glibc.poll(&entries, nfds_t(entries.count), -1)
    }
}

/// Starts a detached thread that runs `body`.
func startThread(_ body: @escaping @Sendable () -> Void) throws(Errno) {
    final class Box: Sendable {
        let body: @Sendable () -> Void
        init(_ body: @escaping @Sendable () -> Void) { self.body = body }
    }
    var attributes = pthread_attr_t()
    unsafe pthread_attr_init(&attributes)
    unsafe pthread_attr_setdetachstate(&attributes, CInt(PTHREAD_CREATE_DETACHED))
    // SAFETY: the reference taken here is given back once, by the new thread or below.
    let box = unsafe Unmanaged.passRetained(Box(body))
    var thread = pthread_t()
    let result = unsafe pthread_create(
        &thread,
        &attributes,
        { argument in
            guard let argument = unsafe argument else { return nil }
            unsafe Unmanaged<Box>.fromOpaque(argument).takeRetainedValue().body()
            return nil
        },
        box.toOpaque()
    )
    unsafe pthread_attr_destroy(&attributes)
    if result != 0 {
        unsafe box.release()
        throw Errno(rawValue: result)
    }
}
