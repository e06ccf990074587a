// Drivers of the host are held off a bus while a configuration is set, and nobody else goes without: on a copy of sysfs.

import CLinux
import Foundation
import Glibc
import HostIO
import SystemPackage
import Testing

@testable import HostUSB

/// Two buses, a guest's disk at 3-1.5 and the host's own devices beside it.
private struct Bench {
    let fake: FakeTree
    let facts: USBDeviceFacts

    init(isAuthorizing: String = "1\n") throws {
        fake = try FakeTree()
        for bus in [3, 4] { try fake.write("usb\(bus)/interface_authorized_default", isAuthorizing) }
        try fake.write("drivers_probe", "")
        try fake.plugDisk("3-1.5", number: 7, ["3-1.5:1.0/authorized": "1\n", "bNumInterfaces": " 1\n"])
        try fake.plugDisk("3-2", number: 8, ["3-2:1.0/authorized": "0\n", "bNumInterfaces": " 1\n"])
        let address = try #require(USBBusAddress("3-1.5"))
        facts = try #require(fake.tree.facts(of: address))
    }

    var drivers: ProbeGuard {
        ProbeGuard(tree: fake.tree, probe: fake.root.appending("drivers_probe"), locks: fake.root.appending("locks"))
    }

    func text(_ name: String) throws -> String {
        try String(contentsOf: fake.path.appendingPathComponent(name), encoding: .utf8)
            .trimmingCharacters(in: .whitespacesAndNewlines)
    }

    /// Somebody plugs in a keyboard; its interface is authorized as the bus says.
    func plugKeyboard() throws {
        let value = try text("usb3/interface_authorized_default")
        try fake.plugDisk("3-3", number: 9, ["3-3:1.0/authorized": "\(value)\n", "bNumInterfaces": " 1\n"])
    }

    /// All is as it was; the keyboard has got its driver.
    func expectPutBack(sourceLocation: SourceLocation = #_sourceLocation) throws {
        #expect(try text("usb3/interface_authorized_default") == "1", sourceLocation: sourceLocation)
        #expect(try text("drivers_probe") == "3-3:1.0", sourceLocation: sourceLocation)
        #expect(try text("3-3/3-3:1.0/authorized") == "1", sourceLocation: sourceLocation)
        // What the administrator has forbidden stays forbidden.
        #expect(try text("3-2/3-2:1.0/authorized") == "0", sourceLocation: sourceLocation)
        #expect(try text("locks/bus-3") == "", sourceLocation: sourceLocation)
    }
}

@Suite struct ProbeGuardTests {
    @Test func newInterfacesAreOfferedToNobodyAndOtherDevicesGetTheirDrivers() throws {
        let bench = try Bench()
        var seen: [String] = []
        try bench.drivers.withoutDrivers(bench.facts) { () -> Result<Void, any Error> in
            Result {
                // Only this bus, as long as the body runs.
                seen = try ["usb3", "usb4"].map { try bench.text("\($0)/interface_authorized_default") }
                try bench.fake.write("3-1.5/3-1.5:2.0/authorized", seen[0] + "\n")
                try bench.plugKeyboard()
            }
        }.get()
        #expect(seen == ["0", "1"])
        try bench.expectPutBack()
        // The owner's own is for the owner to claim.
        #expect(try bench.text("3-1.5/3-1.5:2.0/authorized") == "0")
    }

    @Test func aDeadHoldersHoldIsPutBack() throws {
        for isSuccessor in [true, false] {
            let bench = try Bench()
            // A process that dies in the middle: whatever it has changed stays, its lock does not.
            let body: () -> Void = {
                do {
                    try bench.plugKeyboard()
                    try FileManager.default.copyItem(
                        at: bench.fake.path.appendingPathComponent("locks/bus-3"),
                        to: bench.fake.path.appendingPathComponent("journal")
                    )
                } catch { Issue.record(error) }
            }
            bench.drivers.withoutDrivers(bench.facts, body)
            try bench.fake.write(
                "locks/bus-3",
                try String(contentsOf: bench.fake.path.appendingPathComponent("journal"), encoding: .utf8)
            )
            try bench.fake.write("usb3/interface_authorized_default", "0\n")
            try bench.fake.write("3-3/3-3:1.0/authorized", "0\n")
            try bench.fake.write("drivers_probe", "")
            if isSuccessor {
                // The next one who sets a configuration.
                var inside = ""
                bench.drivers.withoutDrivers(bench.facts) {
                    inside = (try? bench.text("usb3/interface_authorized_default")) ?? ""
                }
                #expect(inside == "0")
            } else {
                #expect(bench.drivers.buses == [3])
                bench.drivers.restore(bus: 3)
            }
            try bench.expectPutBack()
        }
    }

    @Test func aLivingHoldersHoldIsLeftAlone() throws {
        let bench = try Bench()
        bench.drivers.withoutDrivers(bench.facts) {
            bench.drivers.restore(bus: 3)
            #expect(try! bench.text("usb3/interface_authorized_default") == "0")
        }
        #expect(try bench.text("usb3/interface_authorized_default") == "1")
    }

    @Test func anAdministratorsDefaultStays() throws {
        let bench = try Bench(isAuthorizing: "0\n")
        var ran = 0
        bench.drivers.withoutDrivers(bench.facts) { ran += 1 }
        #expect(try bench.text("usb3/interface_authorized_default") == "0")
        #expect(try bench.text("drivers_probe") == "")
        // A kernel that has no such control.
        try bench.fake.remove("usb3/interface_authorized_default")
        bench.drivers.withoutDrivers(bench.facts) { ran += 1 }
        #expect(ran == 2)
    }

    @Test func holdersOfABusTakeTurns() async throws {
        let bench = try Bench()
        let (drivers, facts, path) = (bench.drivers, bench.facts, bench.fake.path)
        // Each finds the default as it was, and puts it back.
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<4 {
                group.addTask {
                    for _ in 0..<20 {
                        drivers.withoutDrivers(facts) {
                            let text = try? String(
                                contentsOf: path.appendingPathComponent("usb3/interface_authorized_default"),
                                encoding: .utf8
                            )
                            #expect(text?.first == "0")
                        }
                    }
                }
            }
        }
        #expect(try bench.text("usb3/interface_authorized_default") == "1")
    }

    @Test func aDeadOwnersDeviceKeepsTheHostsConfiguration() throws {
        let bench = try Bench()
        let locks = bench.fake.root.appending("locks")
        var facts = bench.facts
        var lock: DeviceLock? = try DeviceLock(facts, owner: "backend/vusb/7/0 port 2", in: locks)
        #expect(lock?.hostConfiguration == 1)
        // Nobody has left a device that somebody has.
        #expect(DeviceLock.abandoned(in: locks) == [])
        lock?.leave()
        lock = nil
        let left = DeviceLock.Abandoned(busNumber: 3, deviceNumber: 7, owner: "backend/vusb/7/0 port 2")
        #expect(DeviceLock.abandoned(in: locks) == [left])
        // Its guest had chosen another one.
        facts.activeConfiguration = 2
        lock = try DeviceLock(facts, owner: "successor", in: locks)
        #expect(lock?.hostConfiguration == 1)
        lock = nil
        #expect(DeviceLock.abandoned(in: locks) == [])
        // Another device that has come under the same number.
        lock = try DeviceLock(facts, owner: "a", in: locks)
        lock?.leave()
        lock = nil
        facts.product = 0x1234
        lock = try DeviceLock(facts, owner: "b", in: locks)
        #expect(lock?.hostConfiguration == 2)
    }

    @Test func onlyDevicesThatNobodyGoesOnWithAreGivenBack() throws {
        let bench = try Bench()
        var places = KernelUSB.Places(locks: bench.fake.root.appending("locks"))
        places.devices = bench.fake.root
        places.nodes = bench.fake.root.appending("nodes")
        places.probe = bench.fake.root.appending("drivers_probe")
        let host = KernelUSB(places)
        // An ordinary file: libusb will not have it, which is told.
        try bench.fake.write("nodes/003/007", "")
        var lock: DeviceLock? = try DeviceLock(bench.facts, owner: "backend/vusb/7/0 port 2", in: places.locks)
        lock?.leave()
        lock = nil
        #expect(host.recover { $0 == "backend/vusb/7/0 port 2" } == [])
        #expect(DeviceLock.abandoned(in: places.locks).count == 1)
        let done = host.recover { _ in false }
        #expect(done.count == 1 && done.first?.contains("backend/vusb/7/0 port 2") ?? false, "\(done)")
        // One that is not plugged in any more is forgotten.
        lock = try DeviceLock(bench.facts, owner: "backend/vusb/8/0 port 1", in: places.locks)
        lock?.leave()
        lock = nil
        try bench.fake.remove("3-1.5")
        #expect(host.recover { _ in false } == [])
        #expect(DeviceLock.abandoned(in: places.locks) == [])
    }
}
