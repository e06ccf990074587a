// A network of their own for tests that make interfaces: nothing of it is seen by the host, nothing is left behind.

import CLinux
import Foundation
import HostIO
import SystemPackage
import Testing

@testable import HostNetwork

/// How this run of the tests may make interfaces.
enum Namespace {
    private static let mark = "XENBACK_TESTS_IN_NAMESPACE"
    private static let isInside = ProcessInfo.processInfo.environment[mark] != nil

    /// Why a thread of this process cannot have a network of its own, or nil if it can.
    static let refusal: Errno? = {
        nonisolated(unsafe) var status: CInt = 0
        let done = DispatchSemaphore(value: 0)
        Thread.detachNewThread {
            unsafe status = linux_own_network()
            done.signal()
        }
        done.wait()
        return unsafe status == 0 ? nil : Errno(rawValue: status)
    }()

    /// True where no bridge can tell VLANs apart: some kernels are built without that; Debian's have it.
    static let lacksVLANs: Bool = {
        nonisolated(unsafe) var isRefused = true
        let done = DispatchSemaphore(value: 0)
        Thread.detachNewThread {
            if linux_own_network() == 0 {
                unsafe isRefused = (try? NetlinkSocket().addBridge("bridge0", filtersVLANs: true)) == nil
            }
            done.signal()
        }
        done.wait()
        return unsafe isRefused
    }()

    /// True where the tests that make interfaces run themselves. Where they cannot, `UnprivilegedTests` runs them in a
    /// user namespace.
    static var isAvailable: Bool { refusal == nil }

    /// Runs the tests of this target once more, as root of a user namespace of their own.
    /// - Returns: nil if that is not possible either; else how that run ended.
    static func rerun() throws -> ProcessEnd? {
        if isInside { return nil }
        let inside = ["/usr/bin/unshare", "--user", "--map-root-user", "--net"]
        guard run(inside + ["/bin/sh", "-c", "exec 3<>/dev/net/tun"]) == .exited(0) else { return nil }
        var arguments = CommandLine.arguments
        if let program = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe") {
            arguments[0] = program
        }
        return run(["/usr/bin/env", "\(mark)=1"] + inside + arguments + ["--filter", "HostNetworkTests"])
    }

    private static func run(_ arguments: [String]) -> ProcessEnd? {
        guard let process = try? ChildProcess(spawning: arguments), linux_is_readable(process.descriptor, 300_000)
        else {
            return nil
        }
        return process.takeEnd()
    }
}

/// Runs `body` on a thread that has an empty network, and waits for it.
func inNamespace(_ body: @escaping @Sendable () throws -> Void) async throws {
    let loop = try EventLoop(name: "namespace")
    defer { loop.shutDown() }
    try await withTaskExecutorPreference(loop) {
        #expect(loop.isOnLoop)
        let status = linux_own_network()
        if status != 0 { throw Errno(rawValue: status) }
        try body()
    }
}

/// What the kernel says about an interface of this thread's network.
func interface(_ name: String) throws -> Link? {
    let netlink = try NetlinkSocket()
    return try netlink.link(named: name)
}
