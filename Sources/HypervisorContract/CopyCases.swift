// Promises of GrantTable.copy.

internal import Hypervisor
internal import SharedRing
internal import XenWire

/// A byte that tells where it is.
private func pattern(_ index: Int) -> UInt8 { UInt8(truncatingIfNeeded: index &* 7 &+ index >> 8) }

private func bytes(_ pages: PrivatePages, _ offset: Int, _ count: Int) -> [UInt8] {
    let slot = pages.slot(at: offset, byteCount: count)
    return (0..<count).map { slot.u8($0) }
}

extension HypervisorUnderTest {
    /// Runs `batch` with the frontend and returns the statuses.
    func copy(_ batch: inout GrantCopyBatch) throws(HypervisorFailure) -> [GrantStatus] {
        try backend.grants.copy(&batch, with: frontend.domains.own)
        return (0..<batch.count).map { batch.status(of: $0) }
    }
}

extension HypervisorContract {
    static let copyCases: [ContractCase] = [
        ContractCase("copy: bytes go out and in at any offset, across private pages") { subject in
            let grant = try subject.share(2)
            let own = try PrivatePages(byteCount: 16384)
            own.write((0..<4096).map(pattern), at: 100)
            var batch = GrantCopyBatch(capacity: 8)
            batch.add(
                reference: grant.references[0],
                pageOffset: 0,
                byteCount: 4096,
                intoGrant: true,
                pages: own,
                privateOffset: 100
            )
            try expectEqual(try subject.copy(&batch), [.okay], "the status of the copy in")
            batch.clear()
            for (pageOffset, byteCount, target) in [(0, 4096, 8001), (4095, 1, 200), (513, 1023, 6000)] {
                batch.add(
                    reference: grant.references[0],
                    pageOffset: UInt16(pageOffset),
                    byteCount: UInt16(byteCount),
                    intoGrant: false,
                    pages: own,
                    privateOffset: target
                )
            }
            own.zero(at: 0, count: 16384)
            try expectEqual(try subject.copy(&batch), [.okay, .okay, .okay], "the statuses of the copies out")
            try expectEqual(bytes(own, 8001, 4096), (0..<4096).map(pattern), "the whole page")
            try expectEqual(bytes(own, 199, 3), [0, pattern(4095), 0], "the last byte and its neighbours")
            try expectEqual(bytes(own, 6000, 1023), (513..<1536).map(pattern), "the middle of the page")
            try expectEqual(grant.pages.loadAcquire(at: 4096), 0, "the first word of the second page")
        },
        ContractCase("copy: a bad reference in the middle fails alone") { subject in
            let grant = try subject.share(1)
            grant.pages.storeRelease(0x0403_0201, at: 0)
            let own = try PrivatePages(byteCount: 4096)
            var batch = GrantCopyBatch(capacity: 5)
            for index in 0..<5 {
                batch.add(
                    reference: index == 2 ? absentReference : grant.references[0],
                    pageOffset: 0,
                    byteCount: 4,
                    intoGrant: false,
                    pages: own,
                    privateOffset: index * 4
                )
            }
            let statuses = try subject.copy(&batch)
            try expectEqual(statuses.map { $0 == .okay }, [true, true, false, true, true], "which copies are okay")
            try expectEqual(
                bytes(own, 0, 20),
                [1, 2, 3, 4, 1, 2, 3, 4, 0, 0, 0, 0, 1, 2, 3, 4, 1, 2, 3, 4],
                "what was copied"
            )
        },
        ContractCase("copy: a page granted for reading cannot be written") { subject in
            let grant = try subject.share(1, .readOnly)
            grant.pages.storeRelease(9, at: 0)
            let own = try PrivatePages(byteCount: 4096)
            var batch = GrantCopyBatch(capacity: 2)
            for intoGrant in [true, false] {
                batch.add(
                    reference: grant.references[0],
                    pageOffset: 0,
                    byteCount: 4,
                    intoGrant: intoGrant,
                    pages: own,
                    privateOffset: 0
                )
            }
            try expectEqual(try subject.copy(&batch).map { $0 == .okay }, [false, true], "which copies are okay")
            try expectEqual(grant.pages.loadAcquire(at: 0), 9, "the granted word")
            try expectEqual(bytes(own, 0, 1), [9], "what was copied out")
        },
        ContractCase("copy: neither another domain's page nor an absent domain's can be read") { subject in
            let grant = try subject.frontend.sharing.share(pageCount: 1, with: subject.missing, access: .readWrite)
            grant.pages.storeRelease(9, at: 0)
            let own = try PrivatePages(byteCount: 4096)
            var batch = GrantCopyBatch(capacity: 1)
            batch.add(
                reference: grant.references[0],
                pageOffset: 0,
                byteCount: 4,
                intoGrant: false,
                pages: own,
                privateOffset: 0
            )
            try expect(try subject.copy(&batch) != [.okay], "the page of another domain is read")
            try subject.backend.grants.copy(&batch, with: subject.missing)
            try expect(batch.status(of: 0) != .okay, "a page of a domain that is not there is read")
            try expectEqual(bytes(own, 0, 4), [0, 0, 0, 0], "what was copied out")
        },
        ContractCase("copy: a batch may be of any length, and empty") { subject in
            let grant = try subject.share(1)
            let own = try PrivatePages(byteCount: 8192)
            own.write((0..<2048).map(pattern), at: 0)
            var batch = GrantCopyBatch(capacity: 1024)
            try expectEqual(try subject.copy(&batch), [], "the statuses of no copies")
            for intoGrant in [true, false] {
                for index in 0..<512 {
                    batch.add(
                        reference: index % 100 == 50 ? absentReference : grant.references[0],
                        pageOffset: UInt16(index * 4),
                        byteCount: 4,
                        intoGrant: intoGrant,
                        pages: own,
                        privateOffset: index * 4 + (intoGrant ? 0 : 4096)
                    )
                }
            }
            let okay = try subject.copy(&batch).map { $0 == .okay }
            try expectEqual(okay, (0..<1024).map { $0 % 512 % 100 != 50 }, "which copies are okay")
            let expected = (0..<2048).map { $0 / 4 % 100 == 50 ? 0 : pattern($0) }
            try expectEqual(bytes(own, 4096, 2048), expected, "what came back")
        },
        ContractCase("copy: several threads at once") { subject in
            let grant = try subject.share(8)
            for page in 0..<8 { grant.pages.storeRelease(UInt32(page) + 1, at: page * 4096) }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for page in 0..<8 {
                    group.addTask {
                        let own = try PrivatePages(byteCount: 4096)
                        for round in 0..<50 {
                            var batch = GrantCopyBatch(capacity: 1)
                            batch.add(
                                reference: grant.references[page],
                                pageOffset: 0,
                                byteCount: 4,
                                intoGrant: false,
                                pages: own,
                                privateOffset: 0
                            )
                            try expectEqual(try subject.copy(&batch), [.okay], "the status in round \(round)")
                            try expectEqual(bytes(own, 0, 1), [UInt8(page) + 1], "page \(page) in round \(round)")
                        }
                    }
                }
                try await group.waitForAll()
            }
        },
    ]
}
