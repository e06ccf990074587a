// Why an image cannot be used as it is: what its own bytes say.

public import SystemPackage

/// Something wrong in an image's bytes, or in what was asked of it.
public struct ImageFault: Error, Equatable, CustomStringConvertible, Sendable {
    public enum Kind: Equatable, Sendable {
        /// It is no image of this format.
        case foreign
        /// It uses something that is not supported, or not allowed here.
        case unsupported
        /// It contradicts itself.
        case corrupt
        /// It does not fit: into the format's limits, or into those of the configuration.
        case limit
        /// Its file could not be read or written.
        case storage(Errno)
    }
    public let kind: Kind
    /// Half a sentence that follows the image's name and a colon: what is wrong and what can be done.
    public let text: String

    public init(_ kind: Kind, _ text: String) {
        self.kind = kind
        self.text = text
    }

    public var description: String { text }

    /// What a request that met it ends with.
    public var errno: Errno {
        switch kind {
        case .storage(let errno): errno
        case .foreign, .corrupt: .ioError
        case .unsupported: .notSupported
        case .limit: .noSpace
        }
    }
}
