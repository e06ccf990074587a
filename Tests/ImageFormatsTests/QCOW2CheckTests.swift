// The check beside QEMU's: clean images of all kinds, and each kind of damage.

import Testing

@testable import ImageFormats

@Suite struct QCOW2CheckTests {
    let folder = Folder()

    @Test(arguments: [
        "-o cluster_size=512", "-o cluster_size=2M", "-o extended_l2=on,cluster_size=16k", "-o compat=0.10",
        "-o refcount_bits=1",
        "-o refcount_bits=64,cluster_size=1k", "-o preallocation=metadata", "-o lazy_refcounts=on",
    ])
    func imagesOfQEMUAreClean(_ options: String) throws {
        let io =
            "qemu-io -f qcow2 -c 'write -P 5 64k 300k' -c 'write -z 1M 128k' -c 'discard 128k 64k' -c 'write -P 7 3M 512' a.qcow2"
        let file = try QEMU.image(folder, "qemu-img create -f qcow2 \(options) a.qcow2 4M", io)
        let report = try QCOW2Format.check(file)
        #expect(report.isClean, "\(report.findings)")
        #expect(report.allocatedUnits > 0)
    }

    @Test func snapshotsBitmapsAndCompressedClustersAreCounted() throws {
        let file = try QEMU.image(
            folder,
            "qemu-img create -f raw b.raw 4M && qemu-io -f raw -c 'write -P 3 0 2M' b.raw",
            "qemu-img convert -c -f raw -O qcow2 b.raw a.qcow2",
            "qemu-img snapshot -c one a.qcow2",
            "qemu-io -f qcow2 -c 'write -P 9 64k 200k' a.qcow2",
            "qemu-img snapshot -c two a.qcow2",
            "qemu-img bitmap --add -f qcow2 a.qcow2 map",
            "qemu-io -f qcow2 -c 'write -P 9 512k 1k' a.qcow2"
        )
        let report = try QCOW2Format.check(file)
        #expect(report.isClean, "\(report.findings)")
        // The bitmap stays valid for those who know it, but not for what we write: it is marked.
        #expect(try QCOW2Header(reading: file).bitmaps?.count == 1)
        _ = try QCOW2Format.open(forWriting: file)
        try FakeFile.save(file.bytes, "\(folder.path)/a.qcow2")
        #expect(QEMU.run("qemu-img info -f qcow2 a.qcow2 | grep -q in-use", in: folder) == 0, "\(QEMU.output(folder))")
        #expect(QEMU.run("qemu-img check -f qcow2 a.qcow2", in: folder) == 0, "\(QEMU.output(folder))")
    }

    /// Damage at a place of a small image: what is found, and what is left after a repair.
    @Test(
        arguments: [
            // A refcount too high: a leak. Too low, and none: corruption.
            (0x20000 + 2 * 1, [0, 2], true, 0), (0x20000 + 2 * 5, [0, 0], false, 0),
            // The copied flag of L1 and L2.
            (0x30000, [0x00], false, 0), (0x40000, [0x00], false, 0),
            // Reserved bits, and offsets that cannot be.
            (0x30007, [0x01], false, nil), (0x40000, [0x81], false, nil), (0x40006, [0x02], false, nil),
            (0x40003, [0x40], false, nil),
            (0x10002, [0x01], false, nil), (0x10007, [0x02], false, nil),
        ] as [(Int, [UInt8], Bool, Int32?)]
    )
    func damage(_ place: Int, _ bytes: [UInt8], _ isLeak: Bool, _ afterRepair: Int32?) throws {
        let file = try QEMU.image(
            folder,
            "qemu-img create -f qcow2 a.qcow2 1M",
            "qemu-io -f qcow2 -c 'write -P 5 0 128k' a.qcow2"
        )
        #expect(try QCOW2Format.check(file).isClean)
        try file.write(bytes, at: UInt64(place))
        let report = try QCOW2Format.check(file)
        #expect(!report.isClean)
        #expect(isLeak == (report.corruptions == 0), "\(report.findings)")
        let theirs = try QEMU.check(file.bytes, in: folder)
        #expect(theirs == (report.corruptions > 0 ? 2 : 3) || theirs == 1, "\(theirs): \(QEMU.output(folder))")
        let repaired = try QCOW2Format.repair(file)
        if afterRepair != nil {
            #expect(repaired.isClean, "\(repaired.findings)")
            #expect(try QEMU.check(file.bytes, in: folder) == 0, "\(QEMU.output(folder))")
        }
    }

    /// An L1 table that names one L2 table again and again is read in the time of one.
    @Test(.timeLimit(.minutes(1)))
    func repeatedTablesAreReadOnce() throws {
        var options = QCOW2Options(byteCount: 1 << 40, clusterBytes: 65536, hasExtendedL2: false)
        options.refcountBits = 16
        let file = FakeFile(try options.draft())
        let header = try QCOW2Header(reading: file)
        try file.write([UInt8](repeating: 0xFF, count: 65536), at: 0x40_0000)
        var l1 = [UInt8](repeating: 0, count: Int(header.l1Entries) * 8)
        for index in 0..<Int(header.l1Entries) { l1.putBigEndian(UInt64(0x8000_0000_0040_0000), at: index * 8) }
        try file.write(l1, at: header.l1Offset)
        let report = try QCOW2Format.check(file)
        #expect(report.corruptions > 0)
        #expect(report.findings.count <= ImageCheckReport.findingLimit)
    }

    @Test func markedImagesAreNotWritten() throws {
        for bit: UInt8 in [1, 2] {
            let file = FakeFile(try QCOW2Options(byteCount: 1 << 20).draft())
            try file.write([bit], at: 79)
            #expect(throws: ImageFault.self) { _ = try QCOW2Format.open(forWriting: file) }
            _ = try QCOW2Format.open(file)
            #expect(try QCOW2Format.repair(file).isClean)
            _ = try QCOW2Format.open(forWriting: file)
        }
    }

    /// Features that this writer does not know are not true of the image any more.
    @Test func unknownAutoclearBitsAreCleared() throws {
        let file = FakeFile(try QCOW2Options(byteCount: 1 << 20).draft())
        try file.write([0x80, 0, 0, 0, 0, 0, 0, 0xF0], at: 88)
        _ = try QCOW2Format.open(file)
        #expect(file.bytes[88] == 0x80)
        _ = try QCOW2Format.open(forWriting: file)
        #expect(file.bytes[88..<96].allSatisfy { $0 == 0 })
    }
}
