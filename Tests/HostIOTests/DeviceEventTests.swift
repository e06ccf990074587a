// Messages about devices on a loop: many, cut ones, and the end.

import Glibc
import HostIO
import Synchronization
import SystemPackage
import TestSupport
import Testing

@Suite struct DeviceEventTests {
    /// What arrived, as texts.
    private final class Heard: Sendable {
        private let texts = Mutex<[String]>([])
        var all: [String] { texts.withLock { $0 } }
        func add(_ arrival: DeviceEventSocket.Arrival) {
            let text =
                switch arrival {
                case .loss: "loss"
                case .message(let bytes): String(decoding: bytes, as: UTF8.self)
                }
            texts.withLock { $0.append(text) }
        }
    }

    /// Only root's messages count.
    @Test(.enabled(if: geteuid() == 0)) func messagesArriveInTheirOrderUntilTheEnd() async throws {
        let loop = try EventLoop(name: "test")
        defer { loop.shutDown() }
        var pair: [CInt] = [-1, -1]
        #expect(unsafe socketpair(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_NONBLOCK.rawValue), 0, &pair) == 0)
        let (ours, theirs) = (OpenFile(adopting: pair[0]), OpenFile(adopting: pair[1]))
        var on: CInt = 1
        _ = unsafe setsockopt(ours.descriptor, SOL_SOCKET, SO_PASSCRED, &on, socklen_t(MemoryLayout<CInt>.size))
        let heard = Heard()
        let socket = DeviceEventSocket(on: loop, socket: ours) { heard.add($0) }
        // Blocking, as the other end's queue is short: more than are read in one turn.
        @Sendable func send(_ bytes: [UInt8]) {
            while unsafe Glibc.send(theirs.descriptor, bytes, bytes.count, 0) < 0, errno == EAGAIN { usleep(1000) }
        }
        for number in 0..<200 { send(Array("\(number)".utf8)) }
        #expect(await eventually { heard.all == (0..<200).map { "\($0)" } })
        // Longer than any real one: left out, and no reason to stop.
        send([UInt8](repeating: 0x41, count: 20000))
        send(Array("after".utf8))
        #expect(await eventually { heard.all.last == "after" })
        #expect(heard.all.count == 201)
        await loop.on { socket.end() }
        send(Array("late".utf8))
        // Whatever the loop would still have done is done.
        for _ in 0..<3 { await loop.on {} }
        #expect(heard.all.count == 201)
    }

    /// The real socket of the kernel, where one may be made: it is one, or the failure says what there is none of.
    @Test func theKernelsSocketIsOpenedOrNamed() async throws {
        let loop = try EventLoop(name: "test")
        defer { loop.shutDown() }
        do throws(HostFailure) {
            let socket = try DeviceEventSocket(on: loop) { _ in }
            await loop.on { socket.end() }
        } catch {
            #expect(error.kind == .host && error.text.contains("netlink"))
        }
    }
}
