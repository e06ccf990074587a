// A failed call to the hypervisor or to xenstored.

public import SystemPackage

/// A call to the hypervisor or to xenstored failed. A host failure; it contains no text from the frontend.
public struct HypervisorFailure: Error, Sendable, CustomStringConvertible {
    /// What was attempted, e.g. `map 4 grants of domain 7`.
    public let operation: String
    public let errno: Errno
    public init(_ operation: String, _ errno: Errno) {
        self.operation = operation
        self.errno = errno
    }
    public var description: String { "\(operation): \(errno)" }
}
