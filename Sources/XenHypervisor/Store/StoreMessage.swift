// XenStore's wire format (public/io/xs_wire.h, docs/misc/xenstore.txt) as pure values.

internal import CXen
internal import SystemPackage

/// One message: the 16-byte header without the length, and what follows it.
struct StoreMessage: Equatable {
    /// `enum xsd_sockmsg_type`, for the types in use.
    enum Kind {
        static let directory = XS_DIRECTORY.rawValue
        static let read = XS_READ.rawValue
        static let permissions = XS_GET_PERMS.rawValue
        static let watch = XS_WATCH.rawValue
        static let unwatch = XS_UNWATCH.rawValue
        static let transactionStart = XS_TRANSACTION_START.rawValue
        static let transactionEnd = XS_TRANSACTION_END.rawValue
        static let write = XS_WRITE.rawValue
        static let remove = XS_RM.rawValue
        static let setPermissions = XS_SET_PERMS.rawValue
        static let isIntroduced = XS_IS_DOMAIN_INTRODUCED.rawValue
        static let event = XS_WATCH_EVENT.rawValue
        static let error = XS_ERROR.rawValue
        static let directoryPart = XS_DIRECTORY_PART.rawValue
    }

    static let headerSize = 16
    /// `XENSTORE_PAYLOAD_MAX`: xenstored drops a connection that sends more.
    static let maximumPayload = Int(XENSTORE_PAYLOAD_MAX)

    var kind: UInt32
    var transaction: UInt32 = 0
    var payload: [UInt8]

    /// The bytes to send; `req_id` is 0, because there is never more than one request under way.
    var encoded: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(StoreMessage.headerSize + payload.count)
        for word in [kind, 0, transaction, UInt32(payload.count)] {
            for shift in stride(from: 0, to: 32, by: 8) { bytes.append(UInt8(truncatingIfNeeded: word >> shift)) }
        }
        return bytes + payload
    }

    /// The strings of a payload that ends each with a zero byte, or separates them with one.
    static func strings(_ payload: [UInt8]) -> [ArraySlice<UInt8>] {
        var parts = payload.split(separator: 0, omittingEmptySubsequences: false)
        if parts.last?.isEmpty == true { parts.removeLast() }
        return parts
    }

    /// The error in an `XS_ERROR` payload; an unknown word is EINVAL, as in libxenstore.
    static func errno(_ payload: [UInt8]) -> Errno {
        errors.first { payload.elementsEqual($0.0.utf8) || payload.elementsEqual($0.0.utf8 + [0]) }?.1
            ?? .invalidArgument
    }

    private static let errors: [(String, Errno)] = [
        ("EINVAL", .invalidArgument), ("EACCES", .permissionDenied), ("EEXIST", .fileExists),
        ("EISDIR", .isDirectory), ("ENOENT", .noSuchFileOrDirectory), ("ENOMEM", .noMemory),
        ("ENOSPC", .noSpace), ("EIO", .ioError), ("ENOTEMPTY", .directoryNotEmpty), ("ENOSYS", .noFunction),
        ("EROFS", .readOnlyFileSystem), ("EBUSY", .resourceBusy), ("EAGAIN", .resourceTemporarilyUnavailable),
        ("EISCONN", .socketIsConnected), ("E2BIG", .argListTooLong), ("EPERM", .notPermitted),
    ]
}

/// Bytes that came from xenstored, cut into messages. Holds at most what one `receive` brought and one message.
struct StoreInbox {
    private var bytes: [UInt8] = []
    private var start = 0

    mutating func append(_ more: some Collection<UInt8>) {
        if start > 0 {
            bytes.removeSubrange(..<start)
            start = 0
        }
        bytes.append(contentsOf: more)
    }

    /// The next whole message; nil if more bytes are needed.
    /// - Throws: `EPROTO` for a length beyond the protocol's: nothing after it can be trusted.
    mutating func next() throws(Errno) -> StoreMessage? {
        guard bytes.count - start >= StoreMessage.headerSize else { return nil }
        let length = Int(word(at: 12))
        guard length <= StoreMessage.maximumPayload else { throw .protocolError }
        let end = start + StoreMessage.headerSize + length
        guard bytes.count >= end else { return nil }
        let message = StoreMessage(
            kind: word(at: 0),
            transaction: word(at: 8),
            payload: Array(bytes[(start + StoreMessage.headerSize)..<end])
        )
        start = end
        return message
    }

    private func word(at offset: Int) -> UInt32 {
        (0..<4).reduce(0) { $0 | UInt32(bytes[start + offset + $1]) << UInt32(8 * $1) }
    }
}
