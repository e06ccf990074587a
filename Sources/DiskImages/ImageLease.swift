// What an open image keeps from others: its open file with the lock, and its owner.

internal import HostIO
internal import Synchronization

/// The identity of a file, whatever its name.
struct FileIdentity: Hashable, Sendable {
    let device: UInt64
    let inode: UInt64
}

/// An open, locked file and its entry in the process's list of image owners.
///
/// The lock belongs to the open file through which the I/O goes, and the kernel holds that until the last request in
/// flight has ended, even after a SIGKILL. Whoever gets the lock therefore knows that no old write is still in flight.
final class ImageLease: Sendable {
    let file: OpenFile
    private let identity: FileIdentity
    private static let owners = Mutex<[FileIdentity: [String]]>([:])
    private let owner: String

    init(file: OpenFile, identity: FileIdentity, owner: String) {
        self.file = file
        self.identity = identity
        self.owner = owner
        ImageLease.owners.withLock { $0[identity, default: []].append(owner) }
    }

    deinit {
        ImageLease.owners.withLock { owners in
            guard let position = owners[identity]?.firstIndex(of: owner) else { return }
            owners[identity]?.remove(at: position)
            if owners[identity]?.isEmpty ?? true { owners[identity] = nil }
        }
    }

    /// The device of this process that has the file open.
    static func owner(of identity: FileIdentity) -> String? { owners.withLock { $0[identity]?.first } }
}
