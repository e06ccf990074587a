// Promises of GrantTable.map and GrantSharing.

internal import Hypervisor
internal import SharedRing
internal import XenWire

/// No grant table is that long.
let absentReference = GrantReference(0x00FF_FFFF)

extension HypervisorUnderTest {
    func share(_ pageCount: Int, _ access: GrantAccess = .readWrite) throws(HypervisorFailure) -> SharedGrant {
        try frontend.sharing.share(pageCount: pageCount, with: backend.domains.own, access: access)
    }

    func map(
        _ references: [GrantReference],
        _ access: GrantAccess = .readWrite
    ) throws(HypervisorFailure) -> SharedPages {
        try backend.grants.map(references, of: frontend.domains.own, access: access)
    }
}

extension HypervisorContract {
    static let grantCases: [ContractCase] = [
        ContractCase("grants: a shared page starts as zero and is seen from both sides") { subject in
            let grant = try subject.share(1)
            try expectEqual(grant.references.count, 1, "the number of references")
            try expectEqual(grant.pages.byteCount, 4096, "the size of one page")
            let mapped = try subject.map(grant.references)
            try expectEqual(mapped.byteCount, 4096, "the size of one mapped page")
            for offset in stride(from: 0, to: 4096, by: 4) {
                try expectEqual(mapped.loadAcquire(at: offset), 0, "the fresh word at \(offset)")
            }
            grant.pages.storeRelease(0x1234_5678, at: 0)
            grant.pages.storeRelease(1, at: 4092)
            try expectEqual(mapped.loadAcquire(at: 0), 0x1234_5678, "what the backend reads of the frontend's word")
            try expectEqual(mapped.loadAcquire(at: 4092), 1, "the last word")
            mapped.storeRelease(0x8765_4321, at: 8)
            try expectEqual(
                grant.pages.loadAcquire(at: 8),
                0x8765_4321,
                "what the frontend reads of the backend's word"
            )
        },
        ContractCase("grants: many pages map one behind the other, in the order asked for") { subject in
            let grant = try subject.share(16)
            try expectEqual(Set(grant.references).count, 16, "the number of different references")
            for page in 0..<16 { grant.pages.storeRelease(UInt32(page) + 1, at: page * 4096) }
            let forward = try subject.map(grant.references)
            let backward = try subject.map(grant.references.reversed())
            for page in 0..<16 {
                try expectEqual(forward.loadAcquire(at: page * 4096), UInt32(page) + 1, "page \(page)")
                try expectEqual(backward.loadAcquire(at: page * 4096), 16 - UInt32(page), "page \(page) backwards")
            }
        },
        ContractCase("grants: a page granted for reading maps for reading only") { subject in
            let grant = try subject.share(1, .readOnly)
            grant.pages.storeRelease(7, at: 100)
            try await expectFailure("mapping it for writing") { () throws(HypervisorFailure) in
                try subject.map(grant.references, .readWrite)
            }
            try expectEqual(try subject.map(grant.references, .readOnly).loadAcquire(at: 100), 7, "the word")
        },
        ContractCase("grants: one bad reference and nothing is mapped") { subject in
            let grant = try subject.share(2)
            for references in [
                [absentReference], [grant.references[0], absentReference, grant.references[1]], [],
            ] {
                try await expectFailure("mapping \(references.map(\.rawValue))") { () throws(HypervisorFailure) in
                    try subject.map(references)
                }
            }
            try expectEqual(try subject.map(grant.references).byteCount, 8192, "what maps afterwards")
        },
        ContractCase("grants: a page granted to another domain does not map") { subject in
            let grant = try subject.frontend.sharing.share(pageCount: 1, with: subject.missing, access: .readWrite)
            try await expectFailure("mapping it") { () throws(HypervisorFailure) in try subject.map(grant.references) }
        },
        ContractCase("grants: a domain that is not there grants nothing") { subject in
            let grant = try subject.share(1)
            try await expectFailure("mapping of domain \(subject.missing)") { () throws(HypervisorFailure) in
                try subject.backend.grants.map(grant.references, of: subject.missing, access: .readWrite)
            }
        },
        ContractCase("grants: mapping and unmapping can be repeated, and mapped twice at a time") { subject in
            let grant = try subject.share(4)
            grant.pages.storeRelease(42, at: 4096)
            let kept = try subject.map(grant.references)
            for round in 0..<100 {
                let mapped = try subject.map(grant.references)
                try expectEqual(mapped.loadAcquire(at: 4096), 42, "the word in round \(round)")
            }
            try expectEqual(kept.loadAcquire(at: 4096), 42, "the word through the first mapping")
        },
        ContractCase("grants: what is no longer shared does not map") { subject in
            var grant: SharedGrant? = try subject.share(1)
            let references = grant?.references ?? []
            do { _ = try subject.map(references) }
            grant = nil
            // The kernels on both sides may take a moment to give pages back.
            let gone = try await eventually {
                do throws(HypervisorFailure) { _ = try subject.map(references) } catch { return true }
                return false
            }
            try expect(gone, "the reference still maps after its pages were given back")
        },
        ContractCase("grants: a successor maps what its predecessor still maps") { subject in
            let grant = try subject.share(1)
            let first = try subject.map(grant.references)
            let second = try subject.neighbour.grants.map(
                grant.references,
                of: subject.frontend.domains.own,
                access: .readWrite
            )
            first.storeRelease(5, at: 0)
            try expectEqual(second.loadAcquire(at: 0), 5, "the word through the successor's mapping")
        },
    ]
}
