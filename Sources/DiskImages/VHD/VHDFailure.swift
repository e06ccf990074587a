// Why an operation on a VHD failed, with what vhd-util exits with.

internal import ImageFormats
package import SystemPackage

/// An operation on a VHD that failed.
package struct VHDFailure: Error, Hashable, Sendable, CustomStringConvertible {
    /// The image's name as it was given.
    package let path: String
    /// What vhd-util exits with, as a positive number.
    package let errno: Errno
    /// What is wrong, without the image's name.
    package let reason: String

    package init(_ path: String, _ errno: Errno, _ reason: String) {
        self.path = path
        self.errno = errno
        self.reason = reason
    }

    init(_ path: String, _ fault: ImageFault) {
        let errno: Errno = if case .storage(let errno) = fault.kind { errno } else { .invalidArgument }
        self.init(path, errno, fault.text)
    }

    package init(_ path: String, _ attempt: String, _ errno: Errno) { self.init(path, errno, "\(attempt): \(errno)") }

    package var description: String { "\(path): \(reason)" }
}

extension VHDFailure {
    /// ERANGE, which swift-system has no name for.
    package static let outOfRange = Errno(rawValue: 34)
}
