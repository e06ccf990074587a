// Parked queues with their copies at the service manager, over a restart of everything.

import Glibc
import HostIO
import HostNetwork
import Synchronization
import Testing

@testable import BackendServer

/// A descriptor that stands for a queue.
private struct FakeQueue: KeptDescriptor {
    let file: OpenFile
    var descriptor: CInt { file.descriptor }

    init() throws(HostFailure) {
        let number = unsafe open("/dev/null", O_RDONLY | O_CLOEXEC)
        if number < 0 { throw HostFailure(.host, "no /dev/null") }
        file = OpenFile(adopting: number)
    }
}

/// What the service manager was told, in order; descriptors are thrown away.
private final class Manager {
    private let path = "/tmp/xenback-manager-\(getpid())-\(UInt32.random(in: 0 ... .max))"
    private let socket: CInt

    init() throws {
        socket = Glibc.socket(AF_UNIX, CInt(SOCK_DGRAM.rawValue | SOCK_NONBLOCK.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { room in
            for (index, byte) in path.utf8.enumerated() { unsafe room[index] = byte }
        }
        let size = socklen_t(MemoryLayout<sockaddr_un>.size)
        let status = unsafe withUnsafePointer(to: &address) { address in
            unsafe address.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe bind(socket, $0, size) }
        }
        try #require(status == 0)
        unsafe setenv("NOTIFY_SOCKET", path, 1)
    }

    deinit {
        unsafe unsetenv("NOTIFY_SOCKET")
        close(socket)
        unsafe unlink(path)
    }

    func told() -> [String] {
        var texts: [String] = []
        while true {
            var failed = false
            let bytes = unsafe [UInt8](unsafeUninitializedCapacity: 4096) { buffer, count in
                let got = unsafe recv(socket, buffer.baseAddress, buffer.count, 0)
                failed = got <= 0
                count = max(0, got)
            }
            if failed { return texts }
            texts.append(String(decoding: bytes, as: UTF8.self))
        }
    }
}

@Suite(.serialized) struct KernelInterfacesTests {
    private static let owner = "xenback backend/vif/7/0"

    private func interfaces(_ names: [String] = []) throws -> KernelInterfaces {
        let stored = try names.map { name in
            ServiceManager.Stored(name: name, file: try FakeQueue().file)
        }
        return KernelInterfaces(stored: stored) { (_) throws(HostFailure) in try FakeQueue() }
    }

    @Test func aParkedQueueHasACopyAsLongAsItIsParked() throws {
        let manager = try Manager()
        let interfaces = try interfaces()
        var parked: (any Sendable)? = try interfaces.park(Self.owner)
        let name = "\(Self.owner)#\(getpid()).1"
        #expect(manager.told() == ["FDSTORE=1\nFDNAME=\(name)"])
        withExtendedLifetime(parked) {}
        parked = nil
        #expect(manager.told() == ["FDSTOREREMOVE=1\nFDNAME=\(name)"])
    }

    /// The predecessor's copy goes after we have our own: at no time is there none.
    @Test func aSuccessorParksItsOwnFirst() throws {
        let manager = try Manager()
        let interfaces = try interfaces(["\(Self.owner)#1.1", "\(Self.owner)#1.2", "xenback backend/vif/8/0#1.3"])
        interfaces.forgetOthers(than: [Self.owner])
        #expect(manager.told() == ["FDSTOREREMOVE=1\nFDNAME=xenback backend/vif/8/0#1.3"])
        let parked = try interfaces.park(Self.owner)
        let told = manager.told()
        #expect(told.first == "FDSTORE=1\nFDNAME=\(Self.owner)#\(getpid()).1")
        #expect(
            Set(told.dropFirst()) == [
                "FDSTOREREMOVE=1\nFDNAME=\(Self.owner)#1.1", "FDSTOREREMOVE=1\nFDNAME=\(Self.owner)#1.2",
            ]
        )
        interfaces.forgetOthers(than: [])
        #expect(manager.told().isEmpty)
        withExtendedLifetime(parked) {}
    }

    /// A card that cannot be parked now keeps what the predecessor had.
    @Test func aRefusalLosesNothing() throws {
        let manager = try Manager()
        let stored = [ServiceManager.Stored(name: "\(Self.owner)#1.1", file: try FakeQueue().file)]
        let interfaces = KernelInterfaces(stored: stored) { (_) throws(HostFailure) in
            throw HostFailure(.notFound, "none")
        }
        #expect(throws: HostFailure.self) { try interfaces.park(Self.owner) }
        interfaces.forgetOthers(than: [Self.owner])
        #expect(manager.told().isEmpty)
    }
}
