// The synchronous operations, as requests on the wire.

internal import Hypervisor
internal import SystemPackage
internal import XenWire

/// Operations of one `perform` or of one attempt at a transaction. Used by the store's thread only.
final class StoreOperations: XenStoreOperations {
    private let core: StoreCore
    /// 0: none.
    private let transaction: UInt32
    private let generation: Int

    init(_ core: StoreCore, transaction: UInt32 = 0) {
        self.core = core
        self.transaction = transaction
        generation = core.generation
    }

    func read(_ path: String) throws(HypervisorFailure) -> String? {
        do throws(HypervisorFailure) {
            guard let value = try optional(StoreMessage.Kind.read, "read", path) else { return nil }
            return String(validating: value, as: UTF8.self)
        } catch  where error.errno == .permissionDenied {
            return nil
        }
    }

    func directory(_ path: String) throws(HypervisorFailure) -> [String]? {
        let payload: [UInt8]?
        do throws(HypervisorFailure) {
            payload = try optional(StoreMessage.Kind.directory, "list", path)
        } catch  where error.errno == .argListTooLong {
            payload = try longDirectory(path)
        }
        return payload.map { names in StoreMessage.strings(names).compactMap { String(validating: $0, as: UTF8.self) } }
    }

    func write(_ path: String, _ value: String) throws(HypervisorFailure) {
        _ = try ask(StoreMessage.Kind.write, "write", path, value)
    }

    func remove(_ path: String) throws(HypervisorFailure) {
        do throws(HypervisorFailure) {
            _ = try ask(StoreMessage.Kind.remove, "remove", path)
        } catch  where error.errno == .noSuchFileOrDirectory {
            // Gone already, and its parent as well.
        }
    }

    func permissions(_ path: String) throws(HypervisorFailure) -> [XenStorePermission]? {
        guard let payload = try optional(StoreMessage.Kind.permissions, "read the permissions of", path) else {
            return nil
        }
        return StoreMessage.strings(payload).compactMap {
            XenStorePermission(text: String(decoding: $0, as: UTF8.self))
        }
    }

    func setPermissions(_ path: String, _ permissions: [XenStorePermission]) throws(HypervisorFailure) {
        let entries = permissions.map { $0.text + "\0" }.joined()
        _ = try ask(StoreMessage.Kind.setPermissions, "set the permissions of", path, entries)
    }

    /// Whether xenstored is in communication with `domain`, which it is until the domain begins to die
    /// (docs/misc/xenstore.txt, IS_DOMAIN_INTRODUCED).
    /// - Throws: `EACCES` unless we are privileged (tools/xenstored/domain.c, do_is_domain_introduced).
    func isIntroduced(_ domain: DomainID) throws(HypervisorFailure) -> Bool {
        let answer = try ask(StoreMessage.Kind.isIntroduced, "look for domain", "\(domain)")
        switch answer.first {
        case UInt8(ascii: "T"): return true
        case UInt8(ascii: "F"): return false
        default: throw HypervisorFailure("look for domain \(domain)", .protocolError)
        }
    }

    /// A directory of more than one message: parts at growing offsets, taken again if it changes meanwhile
    /// (docs/misc/xenstore.txt, DIRECTORY_PART).
    private func longDirectory(_ path: String) throws(HypervisorFailure) -> [UInt8]? {
        var names: [UInt8] = []
        var generation: ArraySlice<UInt8>?
        for _ in 0..<10_000 {
            let payload = try ask(StoreMessage.Kind.directoryPart, "list", path, "\(names.count)\0")
            guard let end = payload.firstIndex(of: 0) else { throw HypervisorFailure("list \(path)", .protocolError) }
            if let generation, generation != payload[..<end] {
                names = []
            } else {
                generation = payload[..<end]
                names += payload[(end + 1)...]
                // The last part ends with an empty name.
                if names.count <= 1 || names[names.count - 2] == 0 { return names.dropLast() }
                continue
            }
            generation = nil
        }
        throw HypervisorFailure("list \(path): it changes all the time", .resourceBusy)
    }

    /// nil where there is nothing to read.
    private func optional(_ kind: UInt32, _ verb: String, _ path: String) throws(HypervisorFailure) -> [UInt8]? {
        do throws(HypervisorFailure) {
            return try ask(kind, verb, path)
        } catch  where error.errno == .noSuchFileOrDirectory {
            return nil
        }
    }

    private func ask(
        _ kind: UInt32,
        _ verb: String,
        _ path: String,
        _ rest: String = ""
    ) throws(HypervisorFailure) -> [UInt8] {
        // A zero byte would end the path early: a name from elsewhere must not reach another node.
        guard !path.isEmpty, !path.utf8.contains(0) else {
            throw HypervisorFailure("\(verb) \(path.debugDescription)", .invalidArgument)
        }
        guard transaction == 0 || core.generation == generation else {
            throw HypervisorFailure("\(verb) \(path)", .resourceTemporarilyUnavailable)
        }
        let payload = Array(path.utf8) + [0] + Array(rest.utf8)
        return try core.call(
            StoreMessage(kind: kind, transaction: transaction, payload: payload),
            "\(verb) \(path)"
        )
    }
}

extension XenStorePermission {
    /// A letter and a domain, as in `r7` (docs/misc/xenstore.txt, GET_PERMS); nil for a reserved domain.
    init?(text: String) {
        guard let letter = text.utf8.first, let domain = DomainID(text: text.dropFirst()) else { return nil }
        switch letter {
        case UInt8(ascii: "n"): self.init(domain, .none)
        case UInt8(ascii: "r"): self.init(domain, .read)
        case UInt8(ascii: "w"): self.init(domain, .write)
        case UInt8(ascii: "b"): self.init(domain, .readWrite)
        default: return nil
        }
    }

    var text: String {
        switch access {
        case .none: "n\(domain)"
        case .read: "r\(domain)"
        case .write: "w\(domain)"
        case .readWrite: "b\(domain)"
        }
    }
}
