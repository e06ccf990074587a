// The answer to an URB.

/// What an URB is answered with: `USBIF_STATUS_*`, which are Linux errno values.
///
/// xen-hcd's `xenhcd_translate_status` knows the header's seven and makes -ESHUTDOWN of everything else, which drivers
/// take for a device that is gone. So what has another errno in Linux is said in the header's words.
public struct URBStatus: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
    public let rawValue: Int32
    @inlinable public init(rawValue: Int32) { self.rawValue = rawValue }

    /// Also of a transfer that was shorter than asked, whether or not that was allowed (see `URBRequest.shortNotOK`), and
    /// of an isochronous URB with packets that failed.
    @inlinable public static var okay: URBStatus { URBStatus(rawValue: 0) }
    /// `USBIF_STATUS_NODEV`, -ENODEV: no device at the port.
    @inlinable public static var noDevice: URBStatus { URBStatus(rawValue: -19) }
    /// `USBIF_STATUS_INVAL`, -EINVAL: the request made no sense.
    @inlinable public static var invalid: URBStatus { URBStatus(rawValue: -22) }
    /// `USBIF_STATUS_STALL`, -EPIPE: the endpoint is halted, or a control request was refused.
    @inlinable public static var stall: URBStatus { URBStatus(rawValue: -32) }
    /// `USBIF_STATUS_IOERROR`, -EPROTO: drivers try again. Also for -EILSEQ and -ETIME, which USB hosts use as they like
    /// (Documentation/driver-api/usb/error-codes.rst).
    @inlinable public static var ioError: URBStatus { URBStatus(rawValue: -71) }
    /// `USBIF_STATUS_BABBLE`, -EOVERFLOW: the device sent more than asked.
    @inlinable public static var babble: URBStatus { URBStatus(rawValue: -75) }
    /// `USBIF_STATUS_SHUTDOWN`, -ESHUTDOWN: the device or the port is gone.
    @inlinable public static var shutdown: URBStatus { URBStatus(rawValue: -108) }
    /// -ECONNRESET: cancelled by an unlink. Not in the header: a frontend that unlinked has its own word for it
    /// (xen-hcd's `urbp->status`) and does not look; older ones want the errno.
    @inlinable public static var unlinked: URBStatus { URBStatus(rawValue: -104) }
    /// -ENOENT: the answer to an unlink of an id that is not in flight. xen-hcd does not look at answers to unlinks.
    @inlinable public static var notFound: URBStatus { URBStatus(rawValue: -2) }

    /// The status with the meaning of this Linux errno (negative) that survives xen-hcd.
    @inlinable
    public init(errno: Int32) {
        switch errno {
        case 0, -121: self = .okay  // -EREMOTEIO
        case -19: self = .noDevice
        case -22, -53, -90: self = .invalid  // -EINVAL, -EBADR, -EMSGSIZE
        case -32: self = .stall
        case -75: self = .babble
        case -108, -113: self = .shutdown  // -ESHUTDOWN, -EHOSTUNREACH (suspended)
        case -2, -104: self = .unlinked  // -ENOENT, -ECONNRESET
        default: self = .ioError  // -EPROTO, -EILSEQ, -ETIME, -ETIMEDOUT, -EXDEV, -ENOSR, -ECOMM …
        }
    }

    public var description: String {
        switch self {
        case .okay: "okay"
        case .noDevice: "no device"
        case .invalid: "invalid"
        case .stall: "stall"
        case .ioError: "I/O error"
        case .babble: "babble"
        case .shutdown: "shutdown"
        case .unlinked: "unlinked"
        case .notFound: "not found"
        default: "status \(rawValue)"
        }
    }
}

/// A response (usbif.h, `struct usbif_urb_response`, 16 bytes).
public struct URBResponse: Hashable, Sendable {
    public let id: UInt16
    /// Of an isochronous URB: the frame of its first packet. Drivers that ask for "as soon as possible" do not look.
    public let startFrame: UInt16
    public let status: URBStatus
    /// Bytes moved; of an isochronous URB the sum of its packets. xen-hcd cuts it to the buffer.
    public let byteCount: UInt32
    /// Packets of an isochronous URB whose status is not `okay`.
    public let errorCount: UInt32

    @inlinable
    public init(
        id: UInt16,
        _ status: URBStatus,
        byteCount: UInt32 = 0,
        startFrame: UInt16 = 0,
        errorCount: UInt32 = 0
    ) {
        self.id = id
        self.startFrame = startFrame
        self.status = status
        self.byteCount = byteCount
        self.errorCount = errorCount
    }

    /// All bytes of the response.
    @inlinable public var words: WireWords {
        WireWords(
            low: UInt64(id) | UInt64(startFrame) &<< 16 | UInt64(UInt32(bitPattern: status.rawValue)) &<< 32,
            high: UInt64(byteCount) | UInt64(errorCount) &<< 32
        )
    }

    /// Reads a response, as the frontend does.
    @inlinable
    public init(decoding bytes: some WireBytes) {
        self.init(
            id: bytes.u16(0),
            URBStatus(rawValue: Int32(bitPattern: bytes.u32(4))),
            byteCount: bytes.u32(8),
            startFrame: bytes.u16(2),
            errorCount: bytes.u32(12)
        )
    }
}
