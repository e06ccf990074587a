// The one door: what is opened by whatever means of ours goes through the access that is installed.

import Glibc
import HostIO
import Synchronization
import SystemPackage
import Testing

/// Opens by itself, keeps a list, and refuses what it is told to.
private final class Doorkeeper: HostAccess {
    let opened = Mutex<[String]>([])
    private let refused: FilePath

    init(refusing path: FilePath) { refused = path }

    func open(_ path: FilePath, flags: CInt, permissions: CInterop.Mode) throws(Errno) -> CInt {
        opened.withLock { $0.append(path.string) }
        if path == refused { throw .permissionDenied }
        return try OwnAccess().open(path, flags: flags, permissions: permissions)
    }

    func prepare(_ resource: HostResource) { opened.withLock { $0.append("\(resource)") } }
}

/// Not in parallel: the door is the process's.
@Suite(.serialized) struct HostAccessTests {
    @Test func everythingOfOursGoesThroughTheDoor() throws {
        let folder = FilePath("/tmp/xenback-door-\(UInt64.random(in: 0 ... .max))")
        try Files.makeDirectory(folder, permissions: .ownerReadWriteExecute)
        let (file, lock, secret) = (folder.appending("file"), folder.appending("lock"), folder.appending("secret"))
        let keeper = Doorkeeper(refusing: secret)
        let before = HostDoor.install(keeper)
        defer { HostDoor.install(before) }
        try Files.make(file, "text", permissions: .ownerReadWrite)
        try Files.write("TEXT", to: file)
        #expect(try Files.contents(of: file, limit: 10) == Array("TEXT".utf8))
        _ = try OpenFile(path: file.string, flags: O_RDONLY)
        #expect(try Files.names(in: folder) == ["file"])
        withExtendedLifetime(try LockFile(taking: lock, text: "x")) {}
        _ = try LockFile.look(at: lock)
        #expect(throws: Errno.permissionDenied) { try Files.contents(of: secret, limit: 10) }
        #expect(HostDoor.enter(.tap("vif7.0")) { 7 } == 7)
        let expected = [file, file, file, file, folder, lock, lock, secret].map(\.string) + ["tap(\"vif7.0\")"]
        #expect(keeper.opened.withLock { $0 } == expected)
    }
}
