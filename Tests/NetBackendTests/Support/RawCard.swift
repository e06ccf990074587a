// A card whose frontend has no manners, beside a bystander that has.

internal import FrontendDrivers
internal import Hypervisor
internal import SharedRing
internal import TestSupport
internal import Testing
internal import XenWire

/// A raw frontend with one queue (or more) and 32 pages, connected. Pages below 8 are for what it sends.
final class RawCard: Sendable {
    let scene: NetScene
    let raw: RawNetworkFrontend
    let queues: [RawNetworkQueue]
    let control: RawRing?
    let pages: SharedGrant
    private let memory: PrivatePages

    var queue: RawNetworkQueue { queues[0] }

    init(queues count: Int = 1, control hasControl: Bool = false, keys: [(String, String?)] = []) async throws {
        scene = try await NetScene(connects: false)
        raw = RawNetworkFrontend(scene.guest, index: NetScene.victimPath.index)
        var queues: [RawNetworkQueue] = []
        for _ in 0..<count { queues.append(try await raw.makeQueue()) }
        self.queues = queues
        control = hasControl ? try await raw.makeControlRing() : nil
        pages = try await raw.makePages(32)
        memory = try PrivatePages(byteCount: 4096)
        try await raw.connect(queues, control: control, adding: keys)
        fill(0, Frames.plain(4096))
    }

    /// Puts bytes at the start of a page.
    func fill(_ page: Int, _ bytes: [UInt8], at offset: Int = 0) {
        memory.write(bytes, at: 0)
        pages.pages.copyIn(at: page * 4096 + offset, count: bytes.count, from: memory, at: 0)
    }

    /// The first bytes of a page.
    func bytes(_ page: Int, _ count: Int) -> [UInt8] {
        pages.pages.copyOut(at: page * 4096, count: count, to: memory, at: 0)
        let slot = memory.slot(at: 0, byteCount: count)
        return (0..<count).map { slot.u8($0) }
    }

    /// What the responses at ring indices say of pages that were posted one behind the other; empty if one is an error.
    func received(_ indices: Range<UInt32>, firstPage: Int) -> [UInt8] {
        var all: [UInt8] = []
        for (number, index) in indices.enumerated() {
            let response = queue.received(at: index)
            guard response.status >= 0 else { return [] }
            let offset = Int(response.offset)
            all += bytes(firstPage + number, offset + Int(response.status)).dropFirst(offset)
        }
        return all
    }

    /// A transmit slot for a page of ours.
    func slot(
        _ id: UInt16,
        size: UInt16,
        _ flags: TransmitFlags = [],
        page: Int = 0,
        offset: UInt16 = 0
    ) -> WireWords {
        RawNetworkQueue.request(pages.references[page], offset: offset, flags: flags, id: id, size: size)
    }

    /// Posts a page.
    func post(page: Int, id: UInt16, at index: UInt32) {
        queue.receive.put(ReceiveRequest(id: id, reference: pages.references[page]).words, at: index)
    }

    /// Sends slots and waits for all answers.
    /// - Returns: their statuses; empty if they do not come.
    func statuses(_ slots: [WireWords], sourceLocation: SourceLocation = #_sourceLocation) async -> [Int16] {
        let first = queue.transmit.send(slots)
        let end = first &+ UInt32(slots.count)
        guard await queue.transmit.waitForResponses(upTo: end, within: .seconds(10)) else { return [] }
        return (first..<end).map { queue.answer(at: $0).status }
    }

    /// A good packet goes out.
    func sends(id: UInt16 = 99, sourceLocation: SourceLocation = #_sourceLocation) async throws {
        fill(0, Frames.plain(100))
        let result = await statuses([slot(id, size: 100)])
        #expect(result == [0], sourceLocation: sourceLocation)
        #expect(await (try scene.wire).next()?.bytes == Frames.plain(100), sourceLocation: sourceLocation)
    }

    /// Neither the bystander nor, if it is still served, this card has suffered.
    func end(victimServes: Bool = true, sourceLocation: SourceLocation = #_sourceLocation) async throws {
        if victimServes { try await sends(sourceLocation: sourceLocation) }
        try await scene.end(sourceLocation: sourceLocation)
    }
}
