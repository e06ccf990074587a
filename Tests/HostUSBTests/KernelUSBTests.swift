// The kernel's USB as far as it goes without a bus: refusals that say why, locks, and libusb's words.

import CLinux
import Foundation
import Glibc
import HostIO
import Synchronization
import SystemPackage
import TestSupport
import Testing

@testable import HostUSB

/// A host on a copy of sysfs whose nodes are ordinary files.
private func withHost(_ body: (FakeTree, KernelUSB, EventLoop) async throws -> Void) async throws {
    let fake = try FakeTree()
    let loop = try EventLoop(name: "test")
    defer { loop.shutDown() }
    var places = KernelUSB.Places(locks: fake.root.appending("locks"))
    places.devices = fake.root
    places.nodes = fake.root.appending("nodes")
    places.udev = fake.root.appending("control")
    try await body(fake, KernelUSB(places), loop)
}

private func failure(_ body: () throws(HostFailure) -> any OpenUSBDevice) -> HostFailure? {
    do throws(HostFailure) {
        _ = try body()
        return nil
    } catch { return error }
}

@Suite struct KernelUSBTests {
    @Test func devicesAreThoseOfSysfs() async throws {
        try await withHost { fake, host, _ async throws in
            #expect(try host.devices().isEmpty)
            try fake.plugDisk()
            #expect(try host.devices().map { "\($0)" } == ["3-1.5: ID 0781:5581 SanDisk Ultra Größe"])
        }
    }

    @Test func hubsAreRefused() async throws {
        try await withHost { fake, host, loop async throws in
            try fake.plugDisk("1-1", ["bDeviceClass": "09\n"])
            let facts = try #require(host.devices().first)
            #expect(failure { () throws(HostFailure) in try host.open(facts, owner: "a", on: loop) }?.kind == .denied)
        }
    }

    @Test func anotherDeviceInTheSamePlaceIsNotTaken() async throws {
        try await withHost { fake, host, loop async throws in
            try fake.plugDisk(number: 7)
            let facts = try #require(host.devices().first)
            try fake.plugDisk(number: 8)
            let other = failure { () throws(HostFailure) in try host.open(facts, owner: "a", on: loop) }
            #expect(other?.kind == .notFound)
            try fake.remove("3-1.5")
            let gone = failure { () throws(HostFailure) in try host.open(facts, owner: "a", on: loop) }
            #expect(gone?.kind == .notFound && gone?.text.contains("3-1.5") == true)
        }
    }

    @Test func devicesThatMayNotBeUsedSayWhatToDo() async throws {
        try await withHost { fake, host, loop async throws in
            try fake.plugDisk("3-1.5", ["authorized": "0\n", "bConfigurationValue": "\n"])
            let facts = try #require(host.devices().first)
            let refused = failure { () throws(HostFailure) in try host.open(facts, owner: "a", on: loop) }
            #expect(refused?.kind == .denied && refused?.text.contains("/authorized") == true)
        }
    }

    @Test func nodesThatAreMissingOrAreNone() async throws {
        try await withHost { fake, host, loop async throws in
            try fake.plugDisk()
            let facts = try #require(host.devices().first)
            let missing = failure { () throws(HostFailure) in try host.open(facts, owner: "a", on: loop) }
            #expect(missing?.kind == .notFound)
            // An ordinary file: libusb says that this cannot be, by name.
            try fake.write("nodes/003/007", "")
            let refused = failure { () throws(HostFailure) in try host.open(facts, owner: "a", on: loop) }
            #expect(refused?.text.contains("LIBUSB_ERROR_") == true, "\(String(describing: refused))")
            // What came to nothing left no lock.
            let again = failure { () throws(HostFailure) in try host.open(facts, owner: "b", on: loop) }
            #expect(again?.kind == refused?.kind)
        }
    }

    @Test func aDeviceIsLockedForOneOwner() async throws {
        try await withHost { fake, host, loop async throws in
            try fake.plugDisk()
            let facts = try #require(host.devices().first)
            let locks = fake.root.appending("locks")
            var lock: DeviceLock? = try DeviceLock(facts, owner: "backend/vusb/7/0 port 2", in: locks)
            // However often it is tried: who is refused leaves the holder's name alone.
            for _ in 0..<3 {
                let refused = failure { () throws(HostFailure) in try host.open(facts, owner: "b", on: loop) }
                #expect(refused?.kind == .busy)
                #expect(refused?.text.contains("backend/vusb/7/0 port 2 (pid \(getpid()))") == true)
            }
            // Another device of the same place is another matter.
            var next = facts
            next.deviceNumber += 1
            _ = try DeviceLock(next, owner: "other", in: locks)
            withExtendedLifetime(lock) {}
            lock = nil
            _ = try DeviceLock(facts, owner: "c", in: locks)
        }
    }

    @Test func locksNeedADirectory() throws {
        do throws(HostFailure) {
            _ = try DeviceLock(stick0(), owner: "a", in: "/dev/null/locks")
            Issue.record("a lock in no directory")
        } catch { #expect(error.kind == .host && error.text.contains("/dev/null/locks")) }
    }

    private func stick0() -> USBDeviceFacts {
        USBDeviceFacts(
            address: USBBusAddress("1-1")!,
            busNumber: 1,
            deviceNumber: 2,
            vendor: 1,
            product: 1,
            deviceClass: 0,
            speed: .high
        )
    }

    @Test(
        arguments: [
            (-4, HostFailure.Kind.notFound, "LIBUSB_ERROR_NO_DEVICE"), (-5, .notFound, "LIBUSB_ERROR_NOT_FOUND"),
            (-6, .busy, "LIBUSB_ERROR_BUSY"), (-3, .denied, "LIBUSB_ERROR_ACCESS"), (-1, .host, "LIBUSB_ERROR_IO"),
            (-99, .host, "LIBUSB_ERROR_OTHER"),
        ] as [(CInt, HostFailure.Kind, String)]
    )
    func libusbIsQuoted(_ code: CInt, _ kind: HostFailure.Kind, _ name: String) {
        let failure = USBHandle.failure("1-1 cannot be used", code)
        #expect(failure.kind == kind && failure.text.hasPrefix("1-1 cannot be used: \(name) ("))
    }

    @Test func operationsEndAsLibusbSays() {
        let codes: [CInt] = [0, -9, -5, -4, -7, -1, -99, -6, -2]
        #expect(
            codes.map { KernelDevice.status(ofOperation: $0) } == [
                .completed, .stall, .stall, .noDevice, .timeout, .transactionError, .transactionError, .refused,
                .refused,
            ]
        )
    }

    @Test func watchesEndAndDoNotLeak() async throws {
        try await withHost { _, host, loop async throws in
            for _ in 0..<20 {
                let watch = try host.watch(on: loop) {}
                await loop.on { watch.end() }
            }
        }
    }
}
