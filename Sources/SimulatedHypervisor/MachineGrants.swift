// The machine's grant tables: what is granted, who maps it, and what a revocation finds.

internal import Hypervisor
internal import SystemPackage
internal import XenWire

extension MachineState {
    /// One granted page.
    struct Grant: Sendable {
        let grantee: DomainID
        let frame: UInt32
        let readOnly: Bool
        let share: UInt64
        var revoked = false
        var maps = 0
    }

    /// Pages granted by one call; they go back to the domain together.
    struct Share: Sendable {
        let firstFrame: UInt32
        let references: [UInt32]
        var ended = false
    }

    /// Pages that a connection mapped.
    struct Mapping: Sendable {
        let serial: UInt64
        let references: [UInt32]
    }

    // MARK: granting

    mutating func share(
        _ count: Int,
        with grantee: DomainID,
        readOnly: Bool,
        of id: UInt64
    ) throws(Errno) -> (share: UInt64, references: [UInt32], frames: [UInt32]) {
        guard let session = sessions[id], var domain = domains[session.serial] else { throw .noSuchProcess }
        guard count > 0, count <= 16384 else { throw .invalidArgument }
        let first = try domain.takeFrames(count)
        let number = nextSerial()
        var references: [UInt32] = []
        for index in 0..<count {
            guard let reference = domain.takeReference() else {
                domain.freeReferences += references
                domain.freeRuns[count, default: []].append(first)
                domains[session.serial] = domain
                throw .noSpace
            }
            references.append(reference)
            let grant = Grant(grantee: grantee, frame: first + UInt32(index), readOnly: readOnly, share: number)
            domain.grants[reference] = grant
            domain.memory.setEntry(reference, grant.entry)
        }
        domain.shares[number] = Share(firstFrame: first, references: references)
        domains[session.serial] = domain
        sessions[id]?.shares.insert(number)
        return (number, references, (0..<count).map { first + UInt32($0) })
    }

    /// Ends the grants of a share. Pages that others still map stay theirs until they unmap.
    mutating func endShare(_ number: UInt64, of serial: UInt64) {
        guard var domain = domains[serial], var share = domain.shares[number], !share.ended else { return }
        share.ended = true
        domain.shares[number] = share
        for reference in share.references {
            domain.grants[reference]?.revoked = true
            domain.memory.setEntry(reference, DomainMemory.Entry(word: 0, frame: 0))
        }
        domain.collect(number)
        domains[serial] = domain
        for session in sessions.values where session.serial == serial { sessions[session.id]?.shares.remove(number) }
    }

    /// Ends one grant of a share that goes on.
    /// - Throws: `EBUSY` while it is mapped, as gnttab_end_foreign_access_ref refuses.
    mutating func revoke(_ reference: UInt32, of id: UInt64) throws(Errno) {
        guard let serial = sessions[id]?.serial, let grant = domains[serial]?.grants[reference] else {
            throw .noSuchFileOrDirectory
        }
        guard grant.maps == 0 else { throw .resourceBusy }
        domains[serial]?.grants[reference]?.revoked = true
        domains[serial]?.memory.setEntry(reference, DomainMemory.Entry(word: 0, frame: 0))
    }

    // MARK: mapping

    mutating func map(
        _ references: [UInt32],
        of remote: DomainID,
        writable: Bool,
        for id: UInt64
    ) throws(Errno) -> (mapping: UInt32, serial: UInt64, frames: [UInt32]) {
        guard let session = sessions[id], !references.isEmpty else { throw .invalidArgument }
        // gntdev gives EINVAL for whatever the hypervisor found wrong with a reference.
        guard let serial = serials[remote], var domain = domains[serial] else { throw .invalidArgument }
        var frames: [UInt32] = []
        for reference in references {
            guard let grant = domain.grants[reference], !grant.revoked, grant.grantee == session.caller.domain,
                !(writable && grant.readOnly)
            else { throw .invalidArgument }
            frames.append(grant.frame)
        }
        for reference in references { domain.grants[reference]?.maps += 1 }
        domain.mappedPages += references.count
        domains[serial] = domain
        let number = session.nextNumber
        sessions[id]?.nextNumber += 1
        sessions[id]?.mappings[number] = Mapping(serial: serial, references: references)
        return (number, serial, frames)
    }

    mutating func unmap(_ number: UInt32, of id: UInt64) throws(Errno) {
        guard let mapping = sessions[id]?.mappings.removeValue(forKey: number) else { throw .noSuchFileOrDirectory }
        unmap(mapping)
    }

    mutating func unmap(_ mapping: Mapping) {
        guard var domain = domains[mapping.serial] else { return }
        for reference in mapping.references {
            guard var grant = domain.grants[reference] else { continue }
            grant.maps -= 1
            domain.grants[reference] = grant
            domain.collect(grant.share)
        }
        domain.mappedPages -= mapping.references.count
        domains[mapping.serial] = domain
        dropIfUnused(mapping.serial)
    }
}

extension MachineState.Grant {
    /// As everyone who copies sees it.
    var entry: DomainMemory.Entry {
        let flags = DomainMemory.Entry.permitAccess | (readOnly ? DomainMemory.Entry.readOnly : 0)
        return DomainMemory.Entry(word: flags | UInt32(grantee.rawValue) << 16, frame: frame)
    }
}

extension MachineState.Domain {
    fileprivate mutating func takeFrames(_ count: Int) throws(Errno) -> UInt32 {
        if let run = freeRuns[count]?.popLast() { return run }
        guard Int(nextFrame) + count <= DomainMemory.frameCount else { throw .noMemory }
        defer { nextFrame += UInt32(count) }
        return nextFrame
    }

    fileprivate mutating func takeReference() -> UInt32? {
        if let reference = freeReferences.popLast() { return reference }
        guard nextReference < UInt32(DomainMemory.entryCount) else { return nil }
        defer { nextReference += 1 }
        return nextReference
    }

    /// Takes back the pages and references of an ended share once none of them is mapped.
    fileprivate mutating func collect(_ number: UInt64) {
        guard let share = shares[number], share.ended else { return }
        guard share.references.allSatisfy({ grants[$0]?.maps == 0 }) else { return }
        for reference in share.references { grants[reference] = nil }
        freeReferences += share.references
        freeRuns[share.references.count, default: []].append(share.firstFrame)
        memory.discard(first: share.firstFrame, count: share.references.count)
        shares[number] = nil
    }
}
