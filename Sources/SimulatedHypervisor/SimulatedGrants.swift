// Both halves of grants: the machine keeps the records, pages are mapped and copied here.

internal import Hypervisor
internal import SharedRing
internal import Synchronization
internal import SystemPackage
internal import XenWire

final class SimulatedGrants: GrantTable, GrantSharing {
    private struct Peer: Sendable {
        let serial: UInt64
        let memory: DomainMemory
    }

    private let link: MachineLink
    private let peers = Mutex<[DomainID: Peer]>([:])

    init(link: MachineLink) { self.link = link }

    // MARK: the backend's half

    func map(
        _ references: [GrantReference],
        of domain: DomainID,
        access: GrantAccess
    ) throws(HypervisorFailure) -> SharedPages {
        let operation = "map \(references.count) grants of domain \(domain)"
        let result = try link.call(.map, operation) { message in
            message.put(domain.rawValue)
            message.put(UInt8(access == .readWrite ? 1 : 0))
            message.put(references.map(\.rawValue))
        } read: { (answer, _) throws(Errno) in
            (mapping: try answer.integer(UInt32.self), serial: try answer.integer(UInt64.self), try answer.numbers())
        }
        let unmap: @Sendable () -> Void = { [link] in
            try? link.call(.unmap, "unmap grants of domain \(domain)") { $0.put(result.mapping) }
        }
        do throws(Errno) {
            let peer = try peer(domain)
            guard peer.serial == result.serial else { throw .invalidArgument }
            return try peer.memory.map(result.2, writable: access == .readWrite, released: unmap)
        } catch {
            unmap()
            throw HypervisorFailure(operation, error)
        }
    }

    func copy(_ batch: inout GrantCopyBatch, with domain: DomainID) throws(HypervisorFailure) {
        guard batch.count > 0 else { return }
        guard let peer = try? peer(domain), let pages = try? peer.memory.everything() else {
            // GNTST_bad_domain
            for index in 0..<batch.count { batch.setStatus(GrantStatus(-2), of: index) }
            return
        }
        if peer.memory.hasCopyFaults, let status = try orderedStatus(batch.count, domain) {
            for index in 0..<batch.count { batch.setStatus(status, of: index) }
            return
        }
        for index in 0..<batch.count {
            batch.setStatus(run(batch[index], peer.memory, pages), of: index)
        }
    }

    private func orderedStatus(_ count: Int, _ domain: DomainID) throws(HypervisorFailure) -> GrantStatus? {
        let status = try link.call(.copy, "copy \(count) grants of domain \(domain)") { (answer, _) throws(Errno) in
            try answer.integer(Int16.self)
        }
        return status == 0 ? nil : GrantStatus(status)
    }

    /// One copy, checked as xen/common/grant_table.c (`gnttab_copy_one`, `acquire_grant_for_copy`) checks it.
    private func run(_ copy: GrantCopy, _ memory: DomainMemory, _ pages: SharedPages) -> GrantStatus {
        guard Int(copy.pageOffset) + Int(copy.byteCount) <= SharedPages.pageSize else { return .badCopyArgument }
        guard let entry = memory.entry(copy.reference.rawValue) else { return .badReference }
        guard !memory.isDead, entry.word & DomainMemory.Entry.typeMask == DomainMemory.Entry.permitAccess,
            entry.word >> 16 == UInt32(link.domain.rawValue), Int(entry.frame) < DomainMemory.frameCount,
            !(copy.intoGrant && entry.word & DomainMemory.Entry.readOnly != 0)
        else { return .generalError }
        let offset = Int(entry.frame) * SharedPages.pageSize + Int(copy.pageOffset)
        // SAFETY: frame and offset are inside `pages` (checked above), which the caller holds; the private end is kept
        // alive by the batch's owner. We are the hypervisor here: the other domain may write these bytes meanwhile.
        let shared = unsafe pages.unsafeBase.advanced(by: offset)
        if copy.intoGrant {
            unsafe shared.copyMemory(from: copy.unsafeAddress, byteCount: Int(copy.byteCount))
        } else {
            unsafe copy.unsafeAddress.copyMemory(from: shared, byteCount: Int(copy.byteCount))
        }
        return .okay
    }

    /// The memory of the living domain of this number, from the cache if it is still the same domain.
    private func peer(_ domain: DomainID) throws(Errno) -> Peer {
        if let peer = peers.withLock({ $0[domain] }), !peer.memory.isDead { return peer }
        do throws(HypervisorFailure) {
            let peer = try link.call(.memory, "memory of domain \(domain)") {
                $0.put(domain.rawValue)
            } read: { (answer, descriptors) throws(Errno) in
                guard descriptors.count == 2 else { throw .badMessage }
                let memory = try DomainMemory(frames: descriptors[0], tableFile: descriptors[1])
                return Peer(serial: try answer.integer(), memory: memory)
            }
            peers.withLock { $0[domain] = peer }
            return peer
        } catch {
            peers.withLock { $0[domain] = nil }
            throw error.errno
        }
    }

    // MARK: the frontend's half

    func share(
        pageCount: Int,
        with domain: DomainID,
        access: GrantAccess
    ) throws(HypervisorFailure) -> SharedGrant {
        let operation = "share \(pageCount) pages with domain \(domain)"
        guard let count = UInt32(exactly: pageCount) else { throw HypervisorFailure(operation, .invalidArgument) }
        let result = try link.call(.share, operation) { message in
            message.put(domain.rawValue)
            message.put(UInt8(access == .readOnly ? 1 : 0))
            message.put(count)
        } read: { (answer, _) throws(Errno) in
            (share: try answer.integer(UInt64.self), references: try answer.numbers(), frames: try answer.numbers())
        }
        let unshare: @Sendable () -> Void = { [link] in
            try? link.call(.unshare, "end grants to domain \(domain)") { $0.put(result.share) }
        }
        do throws(Errno) {
            let pages = try peer(link.domain).memory.map(result.frames, writable: true, released: unshare)
            return SharedGrant(references: result.references.map(GrantReference.init), pages: pages)
        } catch {
            unshare()
            throw HypervisorFailure(operation, error)
        }
    }
}
