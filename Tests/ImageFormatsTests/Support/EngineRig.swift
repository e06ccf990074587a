// An engine with a ring and files in memory, whose operations end in any order.

import ImageFormats
import SharedRing
import SystemPackage
import Testing

@testable import ImageFormats

/// One ring on one chain. Nothing happens but by `step`, and which operation ends next the dice decide.
final class EngineRig {
    let engine: ImageEngine
    let files: [FakeFile]
    let client: Int
    var dice: Dice
    private var operations: [(operation: EngineOperation, covers: Int)] = []
    private var moves: [EngineOrder] = []
    private var requests: [Int: Request] = [:]
    private var nextName = 1
    /// Answers, by request: nil for success.
    private(set) var answers: [Int: Errno?] = [:]
    private(set) var mostSteps = 0
    /// Called when a request is answered, before anything else happens.
    var answered: (Int, Errno?) -> Void = { _, _ in }

    struct Request {
        var kind: EngineRequestKind
        var range: DiskRange
        var bytes: [UInt8]
        var handle: UInt32?
    }

    init(_ formats: [any ImageFormat], _ files: [FakeFile], seed: UInt64 = 1, cachePages: Int = 0) throws {
        var layers: [ImageEngine.Layer] = []
        for format in formats { layers.append(try ImageEngine.Layer(format, cachePages: cachePages)) }
        engine = try ImageEngine(layers, alignment: 512)
        client = engine.addClient()
        self.files = files
        dice = Dice(seed)
    }

    // MARK: requests

    /// Starts a request; `bytes` are what is written.
    @discardableResult
    func begin(_ kind: EngineRequestKind, _ start: UInt64, _ count: Int, _ bytes: [UInt8] = []) -> Int {
        let name = nextName
        nextName += 1
        let range = DiskRange(start: start, count: UInt64(count))
        requests[name] = Request(
            kind: kind,
            range: range,
            bytes: kind == .read ? .init(repeating: 0xEE, count: count) : bytes
        )
        switch engine.begin(client: client, name: name, kind, range) {
        case .pending: break
        case .direct(let file, let offset, let handle):
            requests[name]?.handle = handle
            moves.append(
                .transfer(
                    request: name,
                    isWrite: kind == .write,
                    file: file,
                    offset: offset,
                    skip: 0,
                    byteCount: count,
                    token: .max
                )
            )
        }
        drain()
        return name
    }

    /// Runs until a request is answered.
    func finish(_ name: Int) throws -> [UInt8] {
        var steps = 0
        while answers[name] == nil {
            try #require(step(), "request \(name) hangs")
            steps += 1
            try #require(steps < 1_000_000)
        }
        if let errno = answers[name] ?? nil { throw errno }
        return requests[name]?.bytes ?? []
    }

    func read(_ start: UInt64, _ count: Int) throws -> [UInt8] { try finish(begin(.read, start, count)) }
    func write(_ start: UInt64, _ bytes: [UInt8]) throws { _ = try finish(begin(.write, start, bytes.count, bytes)) }
    func discard(_ start: UInt64, _ count: Int) throws { _ = try finish(begin(.discard, start, count)) }
    func flush() throws { _ = try finish(begin(.flush, 0, 0)) }

    /// Runs until nothing is under way.
    func settle() throws {
        var steps = 0
        while step() {
            steps += 1
            try #require(steps < 1_000_000)
        }
        try #require(engine.isIdle)
    }

    func close() throws {
        engine.close()
        try settle()
        #expect(engine.isClosed)
    }

    // MARK: steps

    /// Lets one operation or move end.
    /// - Returns: false if there is none.
    func step() -> Bool {
        drain()
        let all = operations.count + moves.count
        if all == 0 {
            guard engine.wantsTurn else { return false }
            engine.goOn()
            drain()
            return true
        }
        let index = dice.below(all)
        if index < operations.count {
            let (operation, covers) = operations.remove(at: index)
            engine.completed(operation.token, result: perform(operation, covers))
        } else {
            perform(moves.remove(at: index - operations.count))
        }
        drain()
        return true
    }

    private func drain() {
        while let operation = engine.takeOperation() {
            operations.append((operation, files[operation.file].events.count))
        }
        while let order = engine.takeOrder(for: client) {
            switch order {
            case .transfer: moves.append(order)
            case .zero(let name, let skip, let count):
                requests[name]?.bytes.replaceSubrange(skip..<skip + count, with: [UInt8](repeating: 0, count: count))
            case .copy(let name, let buffer, let skip, let count, let token):
                let bytes = engine.pages.slot(at: buffer, byteCount: count).bytes
                requests[name]?.bytes.replaceSubrange(skip..<skip + count, with: bytes)
                engine.moved(token, errno: nil)
            case .ended(let name, let errno): end(name, errno)
            }
        }
    }

    private func end(_ name: Int, _ errno: Errno?) {
        #expect(answers[name] == nil, "request \(name) is answered twice")
        answers[name] = .some(errno)
        answered(name, errno)
    }

    private func perform(_ operation: EngineOperation, _ covers: Int) -> Int32 {
        let file = files[operation.file]
        switch operation.kind {
        case .read:
            let have = max(0, min(operation.byteCount, file.bytes.count - Int(operation.offset)))
            operation.pages.write(
                Array(file.read(at: operation.offset, count: operation.byteCount).prefix(have)),
                at: operation.buffer
            )
            return Int32(have)
        case .write:
            let bytes = operation.pages.slot(at: operation.buffer, byteCount: operation.byteCount).bytes
            do throws(Errno) { try file.write(bytes, at: operation.offset) } catch { return 0 - error.rawValue }
            return Int32(operation.byteCount)
        case .flush:
            file.flush(covers: covers)
            return 0
        case .punch:
            file.punch(Int(operation.offset), operation.byteCount)
            return 0
        case .decompress: return -Errno.notSupported.rawValue
        }
    }

    private func perform(_ order: EngineOrder) {
        guard case .transfer(let name, let isWrite, let fileNumber, let offset, let skip, let count, let token) = order
        else { return }
        let file = files[fileNumber]
        var errno: Errno?
        if isWrite {
            let bytes = Array((requests[name]?.bytes ?? [])[skip..<skip + count])
            do throws(Errno) { try file.write(bytes, at: offset) } catch { errno = error }
        } else {
            requests[name]?.bytes.replaceSubrange(skip..<skip + count, with: file.read(at: offset, count: count))
        }
        if token == .max {
            if let handle = requests[name]?.handle { engine.finished(handle, wasWrite: isWrite) }
            end(name, errno)
        } else {
            engine.moved(token, errno: errno)
        }
    }
}
