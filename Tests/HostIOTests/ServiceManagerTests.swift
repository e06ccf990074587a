// What the service manager is told, and what it gives back, with a socket and descriptors that stand for it.

import CLinux
import Glibc
import SystemPackage
import Testing

@testable import HostIO

@Suite(.serialized) struct ServiceManagerTests {
    /// A notification as the manager gets it.
    private struct Notice {
        var text = ""
        var descriptor: CInt = -1
    }

    /// Runs `body` with a manager's socket in the environment.
    /// - Returns: what it was told.
    private func notices(_ body: () throws -> Void) throws -> [Notice] {
        let path = "/tmp/xenback-notify-\(getpid())-\(UInt32.random(in: 0 ... .max))"
        var address = sockaddr_un()
        #expect(unsafe unix_address(&address, path) == 0)
        let socket = socket(AF_UNIX, CInt(SOCK_DGRAM.rawValue) | CInt(SOCK_NONBLOCK.rawValue), 0)
        defer {
            close(socket)
            unsafe unlink(path)
        }
        try #require(unsafe unix_bind(socket, path) == 0)
        unsafe setenv("NOTIFY_SOCKET", path, 1)
        defer { unsafe unsetenv("NOTIFY_SOCKET") }
        try body()
        var notices: [Notice] = []
        while let notice = receive(socket) { notices.append(notice) }
        return notices
    }

    private func receive(_ socket: CInt) -> Notice? {
        var notice = Notice()
        var (descriptors, count) = ([CInt](repeating: -1, count: Int(LINUX_DESCRIPTORS_MAX)), UInt32(0))
        let bytes = unsafe [UInt8](unsafeUninitializedCapacity: 4096) { buffer, filled in
            filled = unsafe max(
                0,
                linux_receive_descriptors(socket, buffer.baseAddress, buffer.count, &descriptors, &count)
            )
        }
        notice.text = String(decoding: bytes, as: UTF8.self)
        if count > 0 { notice.descriptor = descriptors[0] }
        return bytes.isEmpty ? nil : notice
    }

    private func inode(_ descriptor: CInt) -> UInt64 {
        var status = stat()
        return unsafe fstat(descriptor, &status) == 0 ? UInt64(status.st_ino) : 0
    }

    private func pipeEnds() throws -> (CInt, CInt) {
        var ends: [CInt] = [-1, -1]
        try #require(unsafe pipe(&ends) == 0)
        return (ends[0], ends[1])
    }

    @Test func aStoredDescriptorGoesWithItsName() throws {
        let (kept, other) = try pipeEnds()
        defer {
            close(kept)
            close(other)
        }
        let told = try notices {
            try ServiceManager.ready()
            try ServiceManager.store(kept, as: "xenback backend/vif/7/0#1.1")
            try ServiceManager.unstore("xenback backend/vif/7/0#1.1")
        }
        #expect(
            told.map(\.text) == [
                "READY=1", "FDSTORE=1\nFDNAME=xenback backend/vif/7/0#1.1",
                "FDSTOREREMOVE=1\nFDNAME=xenback backend/vif/7/0#1.1",
            ]
        )
        let copy = try #require(told.map(\.descriptor).first { $0 >= 0 })
        defer { close(copy) }
        #expect(told.map { $0.descriptor >= 0 } == [false, true, false])
        #expect(copy != kept && inode(copy) == inode(kept))
    }

    @Test func withoutAManagerNothingIsTold() throws {
        unsafe unsetenv("NOTIFY_SOCKET")
        try ServiceManager.ready()
        try ServiceManager.store(0, as: "nobody's")
    }

    /// As systemd passes them: one behind the other from the first on, names between colons.
    @Test func whatWasKeptIsTakenOver() throws {
        let (first, second) = try pipeEnds()
        // Two places one behind the other, far above all others.
        let place = fcntl(first, F_DUPFD, 700)
        try #require(place >= 700 && dup2(second, place + 1) == place + 1)
        let inodes = [inode(first), inode(second)]
        close(first)
        close(second)
        let environment = ["LISTEN_PID": "42", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "xenback backend/vif/7/0#9.1:two"]
        #expect(ServiceManager.stored({ environment[$0] }, process: 41, first: place).isEmpty)
        var stored = ServiceManager.stored({ environment[$0] }, process: 42, first: place)
        // The third is not there.
        #expect(stored.map(\.name) == ["xenback backend/vif/7/0#9.1", "two"])
        #expect(stored.map { inode($0.file.descriptor) } == inodes)
        #expect(stored.allSatisfy { fcntl($0.file.descriptor, F_GETFD) & FD_CLOEXEC != 0 })
        stored = []
        #expect(fcntl(place, F_GETFD) == -1 && fcntl(place + 1, F_GETFD) == -1)
    }

    @Test(arguments: ["", "0", "-1", "x", "65537", "99999999999"])
    func aCountThatIsNoneGivesNothing(_ count: String) {
        #expect(ServiceManager.stored({ $0 == "LISTEN_FDS" ? count : "42" }, process: 42, first: 900).isEmpty)
    }
}
