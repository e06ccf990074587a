// The run directory: names of sockets, locks, marks and journals, and their removal.

internal import BackendCore
internal import HostIO
internal import SystemPackage
internal import XenWire

/// `/run/xenbackd`: all that must survive a process but not the host.
struct RunDirectory: Hashable, Sendable {
    let path: FilePath

    init(_ path: FilePath) { self.path = path }

    /// The broker's control socket.
    var controlSocket: FilePath { path.appending("control") }
    /// Held by the broker: there is one for a run directory.
    var brokerLock: FilePath { path.appending("broker.lock") }
    /// The settings that the broker has, for workers: the administrator's own file may be wrong by now, or not yet valid.
    var settings: FilePath { path.appending("settings.toml") }
    /// Journals, a file for each device (BackendCore/RequestJournal).
    var journals: FilePath { path.appending("journal") }

    /// Locks of USB devices that a guest has (HostUSB/DeviceLock).
    var usbLocks: FilePath { path.appending("usb") }

    /// Owners of PCI cards, and which cards have not been reset since their last (HostPCI/PCIHost).
    var pciLocks: FilePath { path.appending("pci") }

    /// How many pages of guests each worker has mapped (BackendCore/GrantShares).
    var grantShares: FilePath { path.appending("grants") }

    func lock(of domain: DomainID) -> FilePath { path.appending("worker-\(domain).lock") }
    func socket(of domain: DomainID) -> FilePath { path.appending("worker-\(domain).sock") }
    func marks(of domain: DomainID) -> FilePath { path.appending("worker-\(domain).marks") }

    /// Makes missing directories, and closes those that others could read: journals hold guests' data.
    /// - Throws: `EPERM` if one belongs to somebody else, `ELOOP` or `ENOTDIR` if it is not a directory.
    func prepare() throws(Errno) {
        for directory in [path, journals] {
            try Files.makeDirectory(directory, permissions: .ownerReadWriteExecute)
            try Files.keepPrivate(directory)
        }
    }

    /// Keeps the text of settings for workers, whole or not at all.
    func keep(settings text: String) throws(Errno) {
        let new = path.appending("settings.toml.new")
        try Files.remove(new)
        try Files.make(new, text, permissions: .ownerReadWrite)
        try Files.rename(new, to: settings)
    }

    /// Domains with a worker's file in the directory, running or not.
    func domains() throws(Errno) -> Set<DomainID> {
        Set(try Files.names(in: path).compactMap { RunDirectory.domain(ofFile: $0) })
    }

    /// `worker-7.lock` → 7.
    static func domain(ofFile name: String) -> DomainID? {
        guard name.hasPrefix("worker-"), let dot = name.firstIndex(of: ".") else { return nil }
        return DomainID(text: name[name.index(name.startIndex, offsetBy: 7)..<dot])
    }

    /// Removes everything of a domain that is gone. Its worker must not run.
    func removeFiles(of domain: DomainID) throws(Errno) {
        try removeJournals(of: domain)
        for file in [marks(of: domain), socket(of: domain), lock(of: domain)] { try Files.remove(file) }
        // Its worker is gone, and its mappings with it.
        if let shares = try? GrantShares(grantShares) { shares.set(0, of: domain) }
    }

    private func removeJournals(of domain: DomainID) throws(Errno) {
        for name in try Files.names(in: journals) where RunDirectory.domain(ofJournal: name) == domain {
            try Files.remove(journals.appending(name))
        }
    }

    /// `vbd3-7-51712` → 7, with or without an ending.
    static func domain(ofJournal name: String) -> DomainID? {
        let parts = name.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count >= 3 else { return nil }
        return DomainID(text: parts[1])
    }
}

/// What a worker's lock file says: who holds it.
struct WorkerLabel: Hashable, Sendable {
    var process: CInt
    /// The program's build, so that a broker of another build replaces the worker.
    var build: String
    /// The identity of the domain it serves, so that a reused number is noticed.
    var identity: String

    var text: String { "\(process)\n\(build)\n\(identity)\n" }

    init(process: CInt, build: String, identity: String) {
        self.process = process
        self.build = build
        self.identity = identity
    }

    /// nil if the file is not (yet) complete.
    init?(text: String) {
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        guard lines.count == 4, lines[3].isEmpty, let process = CInt(decimal: lines[0]), process > 0 else { return nil }
        self.init(process: process, build: String(lines[1]), identity: String(lines[2]))
    }
}
