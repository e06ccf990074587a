// A simulated USB bus that several processes see: a directory, in which each file is a device that is plugged in.

import HostIO
import HostUSB
import SharedRing
import SimulatedHost
import Synchronization
import SystemPackage

/// The content of a file of the directory; its name is where the device is plugged in (`1-1.4`).
enum DemoPlug: Equatable {
    /// `disk /path/stick.img`
    case disk(FilePath)
    /// `keyboard /path/keys`: a FIFO, each byte of which is a key to press.
    case keyboard(FilePath)
    case microphone
    case hub

    init?(_ text: String) {
        let words = text.split(whereSeparator: \.isWhitespace).map(String.init)
        switch (words.first, words.count) {
        case ("disk", 2): self = .disk(FilePath(words[1]))
        case ("keyboard", 2): self = .keyboard(FilePath(words[1]))
        case ("microphone", 1): self = .microphone
        case ("hub", 1): self = .hub
        default: return nil
        }
    }

    var text: String {
        switch self {
        case .disk(let path): "disk \(path)"
        case .keyboard(let path): "keyboard \(path)"
        case .microphone: "microphone"
        case .hub: "hub"
        }
    }

    /// Plugs it into the bus that is in `directory`.
    func plug(at address: String, in directory: FilePath) throws {
        let file = try FileDescriptor.open(
            directory.appending(address),
            .writeOnly,
            options: [.create, .exclusiveCreate],
            permissions: .ownerReadWrite
        )
        // At once: a reader sees nothing, which is no device, or all.
        try file.closeAfter { _ = try file.writeAll(text.utf8) }
    }
}

/// The bus in a directory, as one process sees it: changes are seen when somebody asks, and every 20 ms while there is a
/// watch.
///
/// Where a device is in use is known to its own process only; XenStore keeps two guests apart.
final class DemoBus: USBHost {
    private static let pause = Duration.milliseconds(20)

    private let directory: FilePath
    private let bus = SimulatedUSB()
    private let plugged = Mutex<[USBBusAddress: Device]>([:])

    private struct Device: Sendable {
        let text: String
        /// Keys come from here.
        let keys: DemoKeys?
    }

    init(_ directory: FilePath) { self.directory = directory }

    func devices() throws(HostFailure) -> [USBDeviceFacts] {
        look()
        return try bus.devices()
    }

    func watch(on loop: EventLoop, _ changed: @escaping @Sendable () -> Void) throws(HostFailure) -> any USBWatch {
        let watch = DemoWatch(try bus.watch(on: loop, changed))
        Task(executorPreference: loop) {
            while !watch.isEnded {
                self.look()
                self.type()
                await loop.sleep(for: Self.pause)
            }
        }
        return watch
    }

    func open(_ facts: USBDeviceFacts, owner: String, on loop: EventLoop) throws(HostFailure) -> any OpenUSBDevice {
        try bus.open(facts, owner: owner, on: loop)
    }

    /// Plugs and unplugs devices according to the directory.
    private func look() {
        var texts: [USBBusAddress: String] = [:]
        for name in (try? Files.names(in: directory)) ?? [] {
            guard let address = USBBusAddress(name) else { continue }
            let bytes = try? Files.contents(of: directory.appending(name), limit: 4096)
            texts[address] = bytes.map { String(decoding: $0, as: UTF8.self) }
        }
        plugged.withLock { plugged in
            for (address, device) in plugged where texts[address] != device.text {
                bus.unplug(address)
                plugged[address] = nil
            }
            // In order, so that every process numbers them alike.
            for (address, text) in texts.sorted(by: { $0.key < $1.key }) where plugged[address] == nil {
                plugged[address] = plug(text, at: address)
            }
        }
    }

    private func plug(_ text: String, at address: USBBusAddress) -> Device? {
        var keys: DemoKeys?
        let function: any SimulatedFunction
        switch DemoPlug(text) {
        case .disk(let path):
            guard let pages = try? DemoBus.map(path) else { return nil }
            function = DemoDisk(SimulatedDisk(pages))
        case .keyboard(let path):
            let keyboard = SimulatedKeyboard()
            keys = DemoKeys(keyboard, path)
            function = keyboard
        case .microphone: function = SimulatedSound(.microphone)
        case .hub: function = DemoHub()
        case nil: return nil
        }
        do throws(HostFailure) {
            try bus.plug(function, at: address)
        } catch {
            return nil
        }
        return Device(text: text, keys: keys)
    }

    private static func map(_ path: FilePath) throws -> PrivatePages {
        let file = try FileDescriptor.open(path, .readWrite, options: .closeOnExec)
        return try file.closeAfter {
            try PrivatePages(byteCount: Int(try file.seek(offset: 0, from: .end)), file: file)
        }
    }

    /// Presses what was typed, on keyboards that have an owner; for the others it is kept.
    private func type() {
        let keyboards = plugged.withLock { plugged in
            plugged.compactMap { (address, device) in device.keys.map { (address, $0) } }
        }
        for (address, keys) in keyboards where bus.owner(at: address) != nil { keys.press() }
    }
}

/// Keys on their way from a FIFO to a keyboard.
private final class DemoKeys: Sendable {
    private let keyboard: SimulatedKeyboard
    private let fifo: FileDescriptor?

    init(_ keyboard: SimulatedKeyboard, _ path: FilePath) {
        self.keyboard = keyboard
        fifo = try? FileDescriptor.open(path, .readWrite, options: [.nonBlocking, .closeOnExec])
    }

    deinit { try? fifo?.close() }

    /// One key at a time: what this process has taken is lost with it.
    func press() {
        guard let fifo else { return }
        var byte: [UInt8] = [0]
        // SAFETY: read(2) writes no more than the one byte there is.
        let count = try? unsafe byte.withUnsafeMutableBytes { try unsafe fifo.read(into: $0) }
        if count == 1 { keyboard.press(byte[0]) }
    }
}

private final class DemoWatch: USBWatch {
    private let inner: any USBWatch
    private let ended = Atomic(false)

    init(_ inner: any USBWatch) { self.inner = inner }

    var isEnded: Bool { ended.load(ordering: .relaxed) }

    func end() {
        ended.store(true, ordering: .relaxed)
        inner.end()
    }
}

/// A stick that loses its current command with its process, and reports that: reads before a new command stall. A real
/// one would go on; this one would never answer.
private final class DemoDisk: SimulatedFunction {
    private let disk: SimulatedDisk
    private let isAsked = Atomic(false)

    init(_ disk: SimulatedDisk) { self.disk = disk }

    var strings: SimulatedStrings { disk.strings }
    var speed: USBSpeed { disk.speed }
    var descriptors: USBDescriptors { disk.descriptors }

    func control(_ setup: USBSetup, _ data: SimulatedBytes) -> SimulatedAnswer { disk.control(setup, data) }

    func transfer(endpoint: UInt8, _ data: SimulatedBytes) -> SimulatedAnswer {
        if endpoint & 0x80 == 0 { isAsked.store(true, ordering: .relaxed) }
        return isAsked.load(ordering: .relaxed) ? disk.transfer(endpoint: endpoint, data) : .stall
    }

    func restart(endpoint: UInt8?) { disk.restart(endpoint: endpoint) }
    func setWake(_ wake: (@Sendable () -> Void)?) { disk.setWake(wake) }
}

/// A device that cannot be given away.
private final class DemoHub: SimulatedFunction {
    let strings = SimulatedStrings(product: "Simulated hub")
    let speed = USBSpeed.high
    let descriptors = USBDescriptors(
        device: [18, 1, 0, 2, 9, 0, 1, 64, 0x6B, 0x1D, 2, 0, 0, 1, 1, 2, 0, 1],
        configurations: [
            [9, 2, 25, 0, 1, 1, 0, 0xE0, 0, 9, 4, 0, 0, 1, 9, 0, 0, 0, 7, 5, 0x81, 3, 1, 0, 12]
        ]
    )
}
