// Messages of the kernel and of udev: real ones, cut ones, and those of strangers.

import CLinux
import Foundation
import Glibc
import HostIO
import Synchronization
import SystemPackage
import TestSupport
import Testing

@testable import HostUSB

/// `add@…` with its texts, as the kernel sends it.
private func kernelMessage(_ action: String = "add", type: String = "usb_device") -> [UInt8] {
    let texts = [
        "\(action)@/devices/pci0000:00/usb3/3-1", "ACTION=\(action)", "DEVPATH=/devices/pci0000:00/usb3/3-1",
        "SUBSYSTEM=usb", "DEVNAME=bus/usb/003/007", "DEVTYPE=\(type)", "SEQNUM=4711",
    ]
    return texts.flatMap { Array($0.utf8) + [0] }
}

/// The same from udev.
private func udevMessage(_ action: String = "add", type: String = "usb_device") -> [UInt8] {
    let texts = Array(kernelMessage(action, type: type).drop { $0 != 0 }.dropFirst())
    func word(_ value: UInt32) -> [UInt8] { unsafe withUnsafeBytes(of: value) { unsafe Array($0) } }
    return Array("libudev\0".utf8) + [0xfe, 0xed, 0xca, 0xfe] + word(40) + word(40) + word(UInt32(texts.count))
        + [UInt8](repeating: 0, count: 16) + texts
}

@Suite struct UeventTests {
    @Test func messagesAreRead() throws {
        let kernel = try #require(Uevent(kernelMessage()[...]))
        #expect(kernel.sender == .kernel && kernel.action == "add")
        #expect(kernel.subsystem == "usb" && kernel.deviceType == "usb_device")
        let udev = try #require(Uevent(udevMessage("bind")[...]))
        #expect(udev.sender == .udev && udev.action == "bind" && udev.deviceType == "usb_device")
    }

    @Test func theWordOfUdevIsAwaitedWhereItRuns() throws {
        func counts(_ bytes: [UInt8], _ hasUdev: Bool) throws -> Bool {
            try #require(Uevent(bytes[...])).isChange(hasUdev: hasUdev)
        }
        #expect(try !counts(kernelMessage("add"), true) && counts(kernelMessage("add"), false))
        #expect(try counts(kernelMessage("remove"), true) && counts(kernelMessage("remove"), false))
        #expect(try counts(udevMessage("add"), true) && counts(udevMessage("remove"), true))
        #expect(try !counts(kernelMessage("add", type: "usb_interface"), false))
    }

    @Test func otherSubsystemsAreNothingToUs() throws {
        let bytes = Array("add@/x\0ACTION=add\0SUBSYSTEM=block\0DEVTYPE=usb_device\0".utf8)
        #expect(try !#require(Uevent(bytes[...])).isChange(hasUdev: false))
    }

    @Test func brokenMessagesAreNone() {
        for whole in [kernelMessage(), udevMessage()] {
            for count in 0..<whole.count { #expect(Uevent(whole[..<count])?.deviceType != "usb_devic") }
            for position in whole.indices {
                for value: UInt8 in [0, 1, 0x3d, 0x40, 0x7f, 0x80, 0xff] {
                    var changed = whole
                    changed[position] = value
                    _ = Uevent(changed[...])
                }
            }
        }
        for text in [
            "", "\0", "add\0", "add@/x", "add@/x\0", "ACTION=add\0SUBSYSTEM=usb\0", "libudev\0", "@\0ACTION=\0",
        ] {
            #expect(Uevent(Array(text.utf8)[...]) == nil, "\(text)")
        }
        // Offsets and lengths beyond the message, and a wrong magic number.
        let good = udevMessage()
        for (offset, bytes) in [
            (8, [0, 0, 0, 0]), (16, [0xff, 0xff, 0xff, 0xff]), (16, [0, 0, 0, 0]),
            (20, [0xff, 0xff, 0xff, 0x7f]), (20, [0, 0, 0, 0]),
        ] as [(Int, [UInt8])] {
            var changed = good
            changed.replaceSubrange(offset..<offset + 4, with: bytes)
            #expect(Uevent(changed[...]) == nil)
        }
    }

    /// A slice that does not begin at 0 is read the same.
    @Test func positionsAreThoseOfTheSlice() {
        let shifted = [1, 2, 3] + udevMessage()
        #expect(Uevent(shifted[3...]) == Uevent(udevMessage()[...]))
    }
}

@Suite struct KernelWatchTests {
    /// Only root's messages count.
    @Test(.enabled(if: geteuid() == 0)) func manyMessagesAreOneCall() async throws {
        let loop = try EventLoop(name: "test")
        defer { loop.shutDown() }
        var pair: [CInt] = [-1, -1]
        #expect(unsafe socketpair(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0, &pair) == 0)
        let (ours, theirs) = (OpenFile(adopting: pair[0]), OpenFile(adopting: pair[1]))
        var on: CInt = 1
        _ = unsafe setsockopt(ours.descriptor, SOL_SOCKET, SO_PASSCRED, &on, socklen_t(MemoryLayout<CInt>.size))
        let calls = Mutex(0)
        let watch = KernelWatch(loop: loop, socket: ours, udev: "/nonexistent/control") {
            calls.withLock { $0 += 1 }
        }
        @Sendable func send(_ bytes: [UInt8]) { _ = unsafe Glibc.send(theirs.descriptor, bytes, bytes.count, 0) }
        send(kernelMessage(type: "usb_interface"))
        send(Array("nonsense".utf8))
        try await Task.sleep(for: .milliseconds(100))
        #expect(calls.withLock { $0 } == 0)
        await loop.on { for _ in 0..<100 { send(kernelMessage()) } }
        #expect(await eventually { calls.withLock { $0 } == 1 })
        // Longer than any real one: cut short, and no reason to stop.
        send([UInt8](repeating: 0x41, count: 20000))
        send(kernelMessage("remove"))
        #expect(await eventually { calls.withLock { $0 } == 2 })
        await loop.on { watch.end() }
        send(kernelMessage())
        try await Task.sleep(for: .milliseconds(60))
        #expect(calls.withLock { $0 } == 2)
    }

    /// The real socket: it can be opened, hears the kernel's messages if we may cause one, and an idle one wakes nobody.
    @Test func theKernelIsHeard() async throws {
        let loop = try EventLoop(name: "test")
        defer { loop.shutDown() }
        let watch: KernelWatch
        do throws(HostFailure) { watch = try KernelWatch(loop: loop, udev: "/nonexistent/control") {} } catch {
            #expect(error.text.contains("netlink"))
            return
        }
        // An "add" of a device that is no USB device: read, and not told.
        if let node = FileHandle(forWritingAtPath: "/sys/devices/virtual/mem/null/uevent") {
            try? node.write(contentsOf: Data("add".utf8))
        }
        try await Task.sleep(for: .milliseconds(50))
        let before = loop.wakeUpCount
        try await Task.sleep(for: .milliseconds(200))
        #expect(loop.wakeUpCount - before <= 2)
        await loop.on { watch.end() }
    }
}
