// What opens something of the host stands behind the one door, HostIO's HostAccess.

import Foundation
import Testing

/// Calls that open something, by themselves or in a library. `unix_connect` is here for xenstored's socket; the service's
/// own sockets are HostIO/UnixSocket's.
private let openers = [
    "FileDescriptor.open(", "Glibc.open(", "unsafe open(", "openat(", "unsafe opendir(", "fopen(", "memfd_create(",
    "xenevtchn_open(", "xengnttab_open(", "xengntshr_open(", "xencall_open(", "xenforeignmemory_open(",
    "tun_open_queue(", "nl_connect(", "netlink_watch_link(", "uevent_socket(", "unix_connect(", "libusb_open",
    "FileHandle(",
]

/// The programs that are not shipped as the service, and the simulations.
private let elsewhere = [
    "SimulatedHypervisor", "SimulatedHost", "HypervisorContract", "FrontendDrivers", "xenback", "xenback-bench",
]

/// The door itself, and the sockets of the service.
private let doors = ["HostIO/HostAccess.swift", "HostIO/UnixSocket.swift"]

@Suite struct DoorTests {
    @Test func nothingIsOpenedBesideTheDoor() throws {
        let root = URL(fileURLWithPath: #filePath)
            .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
            .appendingPathComponent("Sources")
        var found = 0
        for path in try FileManager.default.subpathsOfDirectory(atPath: root.path).sorted()
        where path.hasSuffix(".swift") && !doors.contains(path)
            && !elsewhere.contains(String(path.prefix { $0 != "/" }))
        {
            let text = try String(contentsOf: root.appendingPathComponent(path), encoding: .utf8)
            let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
            for (number, line) in lines.enumerated() where !line.drop(while: { $0 == " " }).hasPrefix("//") {
                guard let opener = openers.first(where: { line.contains($0) }) else { continue }
                found += 1
                // On this line, or on the one before, where the call stands in the closure alone.
                let isBehind = lines[max(0, number - 1)...number].contains { $0.contains("HostDoor.enter(") }
                #expect(isBehind, "\(path):\(number + 1) calls \(opener)…) beside HostDoor")
            }
        }
        // The list of openers is not out of date: those of Xen's, the TAP's and the three netlink sockets.
        #expect(found >= 8)
    }
}
