// The demo's third chapter: a stick is read while the worker is killed, keys arrive, a microphone is heard.

import FrontendDrivers
import HostIO
import SharedRing
import SimulatedHost
import XenWire

#if canImport(Glibc)
    import Glibc
#endif

/// A USB controller with three devices.
struct DemoUSB {
    /// Half before the kill, half after it. Usages: 0x04 is A.
    private static let keys: [UInt8] = Array(0x04...0x0F)
    private static let blocksPerRead = 16
    /// Microphone packets, one each millisecond.
    private static let packets = 1000

    private let story: DemoStory
    private let stage: DemoStage

    init(_ story: DemoStory, _ stage: DemoStage) {
        self.story = story
        self.stage = stage
    }

    /// - Parameter time: of the reading.
    func chapter(of time: Duration) async throws -> DemoOutcome.Chapter {
        try await DemoUSBStage(on: stage).play { usb in try await play(usb, time) }
    }

    private func play(_ usb: DemoUSBStage, _ time: Duration) async throws -> DemoOutcome.Chapter {
        try await usb.attach()
        let worker = try await stage.worker(of: DemoUSBStage.domain)
        story.event("worker \(worker) serves guest \(DemoUSBStage.domain)'s USB controller")
        let stick = try DemoStick(try await usb.device(in: 1))
        guard let keyboard = USBKeyboard(try await usb.device(in: 2)) else {
            throw DemoFailure("what is in port 2 is no keyboard")
        }
        let microphone = try await usb.device(in: 3)
        story.event("the guest has found a stick, a keyboard and a microphone")
        var chapter = DemoOutcome.Chapter()
        let half = Self.keys.count / 2
        var typed = try await type(Self.keys.prefix(half), usb, keyboard)
        try await read(stick, time, &chapter)
        typed += try await type(Self.keys.dropFirst(half), usb, keyboard)
        chapter.checks.append(
            .init(
                text: "keyboard: \(Self.keys.count) keys typed before and after, \(typed.count) arrived, in order",
                isRight: typed == Self.keys
            )
        )
        chapter.checks.append(try await listen(to: microphone))
        try await usb.detach()
        story.event("the controller is detached and closed")
        return chapter
    }

    // MARK: the stick

    private func read(_ stick: DemoStick, _ time: Duration, _ chapter: inout DemoOutcome.Chapter) async throws {
        let bytes = Self.blocksPerRead * DemoContent.blockSize
        story.event("the stick is read over and over, \(bytes / 1024) KiB at a time, each block verified")
        let meter = DemoMeter("stick read, killed")
        let begun = ContinuousClock.now
        async let reading = Self.read(stick, until: begun + time, meter)
        try await Task.sleep(for: time / 2)
        let killed = try await stage.killWorker(
            of: DemoUSBStage.domain,
            story,
            "transfers under way",
            then: "; the devices are where they were"
        )
        let sum = try await reading
        let figures = meter.figures()
        chapter.phases.append(figures)
        chapter.kills.append(
            .init(process: "USB worker", pauseMicroseconds: meter.pause(from: killed, to: .now).microseconds)
        )
        let again = await stick.retries
        story.event(
            "\(figures.name): \(figures.requests) reads done, \(again) of them begun again by the guest's driver"
        )
        let expected = try DemoContent.expectedSum([UInt32](repeating: 1, count: DemoUSBStage.blocks))
        chapter.checks.append(
            .init(
                text: "stick: \(String(sum, radix: 16)) read by the guest, \(String(expected, radix: 16)) on it",
                isRight: sum == expected
            )
        )
    }

    /// Whole passes until the time is over.
    /// - Returns: the checksum of the last one.
    private static func read(
        _ stick: DemoStick,
        until end: ContinuousClock.Instant,
        _ meter: DemoMeter
    ) async throws -> UInt64 {
        let pages = try PrivatePages(byteCount: blocksPerRead * DemoContent.blockSize)
        var sum: UInt64 = 0
        repeat {
            sum = 0
            for first in stride(from: 0, to: DemoUSBStage.blocks, by: blocksPerRead) {
                let begun = ContinuousClock.now
                pages.write(try await stick.read(first, blocksPerRead), at: 0)
                var wrong = 0
                for index in 0..<blocksPerRead {
                    let offset = index * DemoContent.blockSize
                    if !DemoContent.matches(pages, at: offset, block: first + index, version: 1) { wrong += 1 }
                    sum &+= DemoContent.sum(pages, at: offset, block: first + index)
                }
                meter.completed(pages.byteCount, since: begun, wrong: wrong)
            }
        } while ContinuousClock.now < end
        return sum
    }

    // MARK: the others

    /// - Returns: the keys that came, as many as were typed.
    private func type(
        _ usages: ArraySlice<UInt8>,
        _ usb: DemoUSBStage,
        _ keyboard: USBKeyboard
    ) async throws -> [UInt8] {
        try usb.type(Array(usages))
        var arrived: [UInt8] = []
        while arrived.count < usages.count { arrived += try await keyboard.nextPress().keys }
        story.event("\(arrived.count) keys were typed and arrived")
        return arrived
    }

    private func listen(to microphone: USBGuestDevice) async throws -> DemoOutcome.Check {
        guard let (interface, endpoint) = microphone.endpoint(.isochronous, .in) else {
            throw DemoFailure("what is in port 3 is no microphone")
        }
        try await microphone.select(interface.number, alternate: interface.alternate)
        var stream = USBSoundStream(microphone, endpoint)
        // Nearly half a second ahead, so that a busy machine's pauses are not the stream's.
        stream.packetsPerURB = 32
        stream.depth = 14
        let counts = try await stream.run(packetCount: Self.packets)
        let lost = counts.failedPackets + counts.emptyPackets + counts.failedURBs
        let text = "microphone: \(counts.packets) ms of 48 kHz stereo heard, \(counts.gaps) gaps, \(lost) packets lost"
        story.event(text)
        // A gap is a machine that was busy for half a second: said, and no fault. A lost packet is one.
        return .init(text: text, isRight: lost == 0 && counts.packets >= Self.packets)
    }
}

/// A stick as a guest's driver uses it: a command whose transfers fail is begun again (Bulk-Only Transport, 5.3.4).
actor DemoStick {
    private let storage: USBMassStorage
    private let device: USBGuestDevice
    /// Commands that were begun again.
    private(set) var retries = 0

    init(_ device: USBGuestDevice) throws {
        storage = try USBMassStorage(device)
        self.device = device
    }

    /// Blocks of 4 KiB.
    func read(_ first: Int, _ count: Int) async throws -> [UInt8] {
        let sectors = DemoContent.sectorsPerBlock
        for _ in 0..<10 {
            do {
                return try await storage.read(block: UInt32(first * sectors), count: UInt16(count * sectors))
            } catch FrontendFailure.urb {
                await recover()
            } catch is USBMassStorage.Failure {
                await recover()
            }
        }
        throw DemoFailure("block \(first) of the stick cannot be read")
    }

    /// Reset Recovery. What fails here, fails again in the next command.
    private func recover() async {
        retries += 1
        _ = try? await device.control(SetupPacket(0x21, 0xFF, value: 0, index: 0))
        for direction in [USBDirection.in, .out] {
            if let endpoint = device.endpoint(.bulk, direction)?.endpoint { try? await device.clearHalt(endpoint) }
        }
    }
}
