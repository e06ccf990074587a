// Sockets between an attached process and the machine: one message per packet, descriptors beside it.

internal import CLinux
internal import Glibc
internal import SystemPackage

/// A message received.
struct MachineMessage: Sendable {
    var bytes: [UInt8]
    var descriptors: [Descriptor]
}

/// One SOCK_SEQPACKET connection.
@safe
final class MachineSocket: Sendable {
    /// Bytes of the largest message.
    static let messageMaximum = 128 * 1024

    let descriptor: Descriptor
    // SAFETY: `messageMaximum` bytes until deinit, used by `receive` alone, which only one thread calls at a time.
    private nonisolated(unsafe) let buffer: UnsafeMutableRawPointer

    init(_ descriptor: Descriptor) {
        self.descriptor = descriptor
        unsafe buffer = UnsafeMutableRawPointer.allocate(byteCount: Self.messageMaximum, alignment: 16)
    }

    deinit { unsafe buffer.deallocate() }

    /// Two connected ends.
    static func pair() throws(Errno) -> (MachineSocket, MachineSocket) {
        var ends: (CInt, CInt) = (-1, -1)
        let result = unsafe withUnsafeMutableBytes(of: &ends) { buffer in
            unsafe socketpair(
                AF_UNIX,
                CInt(SOCK_SEQPACKET.rawValue) | CInt(SOCK_CLOEXEC.rawValue),
                0,
                buffer.bindMemory(to: CInt.self).baseAddress!
            )
        }
        guard result == 0 else { throw Errno(rawValue: errno) }
        return (MachineSocket(Descriptor(owning: ends.0)), MachineSocket(Descriptor(owning: ends.1)))
    }

    /// A socket that listens at `path`, which is replaced if it exists.
    static func listening(at path: String) throws(Errno) -> MachineSocket {
        let socket = try make()
        _ = unsafe unlink(path)
        let bound = try unsafe withAddress(path) { unsafe Glibc.bind(socket.descriptor.raw, $0, $1) }
        guard bound == 0, Glibc.listen(socket.descriptor.raw, 128) == 0 else { throw Errno(rawValue: errno) }
        return socket
    }

    static func connected(to path: String) throws(Errno) -> MachineSocket {
        let socket = try make()
        let result = try unsafe withAddress(path) { unsafe Glibc.connect(socket.descriptor.raw, $0, $1) }
        guard result == 0 else { throw Errno(rawValue: errno) }
        return socket
    }

    private static func make() throws(Errno) -> MachineSocket {
        let type = CInt(SOCK_SEQPACKET.rawValue) | CInt(SOCK_CLOEXEC.rawValue)
        return MachineSocket(try Descriptor(checking: socket(AF_UNIX, type, 0)))
    }

    private static func withAddress(
        _ path: String,
        _ body: (UnsafePointer<sockaddr>, socklen_t) -> CInt
    ) throws(Errno) -> CInt {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let name = Array(path.utf8)
        guard name.count < MemoryLayout.size(ofValue: address.sun_path) else { throw .fileNameTooLong }
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: name) }
        return unsafe withUnsafePointer(to: &address) { pointer in
            // SAFETY: sockaddr_un begins with the fields of sockaddr, as bind(2) and connect(2) expect.
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }

    /// The next connection; throws when the socket was shut down.
    func accept() throws(Errno) -> MachineSocket {
        while true {
            let result = linux_accept(descriptor.raw)
            if result >= 0 { return MachineSocket(Descriptor(owning: result)) }
            if errno != EINTR && errno != ECONNABORTED { throw Errno(rawValue: errno) }
        }
    }

    /// Ends both directions, so that whoever waits in `receive` or `accept` returns.
    func shutDown() { _ = Glibc.shutdown(descriptor.raw, CInt(SHUT_RDWR)) }

    func send(_ bytes: [UInt8], _ descriptors: [Descriptor] = []) throws(Errno) {
        guard bytes.count <= Self.messageMaximum else { throw .messageTooLong }
        let raw = descriptors.map(\.raw)
        var result: Int
        repeat {
            result = unsafe bytes.withUnsafeBytes { message in
                unsafe raw.withUnsafeBufferPointer { list in
                    unsafe linux_send_descriptors(
                        descriptor.raw,
                        message.baseAddress,
                        message.count,
                        list.baseAddress,
                        UInt32(list.count)
                    )
                }
            }
        } while result < 0 && errno == EINTR
        guard result == bytes.count else { throw result < 0 ? Errno(rawValue: errno) : .messageTooLong }
    }

    /// The next message; nil when the other end is gone. One thread at a time.
    func receive() -> MachineMessage? {
        var raw: [CInt] = Array(repeating: -1, count: Int(LINUX_DESCRIPTORS_MAX))
        var found: UInt32 = 0
        var received: Int
        repeat {
            received = unsafe linux_receive_descriptors(
                descriptor.raw,
                buffer,
                Self.messageMaximum,
                &raw,
                &found
            )
        } while received < 0 && errno == EINTR
        guard received > 0 else { return nil }
        let bytes = unsafe [UInt8](UnsafeRawBufferPointer(start: buffer, count: received))
        return MachineMessage(bytes: bytes, descriptors: raw.prefix(Int(found)).map { Descriptor(owning: $0) })
    }
}
