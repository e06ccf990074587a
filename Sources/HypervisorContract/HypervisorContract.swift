// What every implementation of the Hypervisor protocols must do: one list of cases, run on Xen and on the simulation.

public import Hypervisor
public import XenWire

/// The views of one host that a case works with.
public struct HypervisorUnderTest: Sendable {
    /// Maps, copies, binds; may write all of XenStore below `scratch`.
    public let backend: any Hypervisor
    /// Grants and allocates ports. May be the same domain as `backend`: on Xen, dom0 grants to itself.
    public let frontend: any Hypervisor
    /// A second, independent view of `backend`'s domain, as a successor process has it.
    public let neighbour: any Hypervisor
    /// No domain has this number.
    public let missing: DomainID
    /// An absolute XenStore path for the cases to make their nodes below.
    public let scratch: String

    public init(
        backend: any Hypervisor,
        frontend: any Hypervisor,
        neighbour: any Hypervisor,
        missing: DomainID,
        scratch: String
    ) {
        self.backend = backend
        self.frontend = frontend
        self.neighbour = neighbour
        self.missing = missing
        self.scratch = scratch
    }

    /// The same with a `scratch` of its own.
    func below(_ name: String) -> HypervisorUnderTest {
        HypervisorUnderTest(
            backend: backend,
            frontend: frontend,
            neighbour: neighbour,
            missing: missing,
            scratch: "\(scratch)/\(name)"
        )
    }
}

/// The contract is broken; the text says how.
public struct ContractViolation: Error, Sendable, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}

/// One promise, with a name that says it.
public struct ContractCase: Sendable, CustomStringConvertible {
    public let name: String
    private let body: @Sendable (HypervisorUnderTest) async throws -> Void

    init(_ name: String, _ body: @escaping @Sendable (HypervisorUnderTest) async throws -> Void) {
        self.name = name
        self.body = body
    }

    public var description: String { name }

    /// Tries the promise; what it made in XenStore is removed afterwards.
    /// - Throws: `ContractViolation`, or the failure of a call that had to succeed.
    public func check(_ subject: HypervisorUnderTest) async throws {
        let folder = String(name.map { $0.isLetter || $0.isNumber ? $0 : "-" }.prefix(60))
        let own = subject.below(folder)
        let result: Result<Void, any Error>
        do { result = .success(try await body(own)) } catch { result = .failure(error) }
        try await subject.backend.store.remove(own.scratch)
        try result.get()
    }
}

public enum HypervisorContract {
    /// All promises, cheapest capability first.
    public static let cases =
        domainCases + grantCases + copyCases + eventChannelCases + interruptCases + storeCases + watchCases

    /// Tries cases one after the other, telling of each.
    /// - Returns: how many kept and how many broke the contract.
    public static func run(
        _ cases: [ContractCase] = HypervisorContract.cases,
        on subject: HypervisorUnderTest,
        telling tell: (String) -> Void
    ) async -> (passed: Int, failed: Int) {
        var passed = 0
        var failed = 0
        for promise in cases {
            let start = ContinuousClock.now
            do {
                try await promise.check(subject)
                passed += 1
                tell("ok      \(promise.name) (\(Int(start.duration(to: .now) / .milliseconds(1))) ms)")
            } catch {
                failed += 1
                tell("FAILED  \(promise.name): \(error)")
            }
        }
        tell("\(passed) passed, \(failed) failed")
        return (passed, failed)
    }
}

/// Throws a violation unless `condition` holds.
func expect(_ condition: Bool, _ text: @autoclosure () -> String) throws(ContractViolation) {
    if !condition { throw ContractViolation(text()) }
}

/// Throws a violation unless the two are equal.
func expectEqual<T: Equatable>(
    _ found: T,
    _ expected: T,
    _ what: @autoclosure () -> String
) throws(ContractViolation) {
    if found != expected { throw ContractViolation("\(what()) is \(found), not \(expected)") }
}

/// Throws a violation unless `body` fails; returns the failure.
@discardableResult
func expectFailure<R>(
    _ what: String,
    _ body: () async throws(HypervisorFailure) -> R
) async throws(ContractViolation) -> HypervisorFailure {
    do throws(HypervisorFailure) { _ = try await body() } catch {
        try expect(!error.operation.isEmpty, "\(what) fails without saying what was attempted")
        return error
    }
    throw ContractViolation("\(what) succeeds")
}

/// Asks until the answer is yes or the time is over.
func eventually(within time: Duration = .seconds(5), _ condition: () throws -> Bool) async throws -> Bool {
    let deadline = ContinuousClock.now + time
    while ContinuousClock.now < deadline {
        if try condition() { return true }
        try await Task.sleep(for: .milliseconds(5))
    }
    return try condition()
}
