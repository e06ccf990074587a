// Disk names and numbers, both ways, against the examples of xen-vbd-interface(7).

import ControlProtocol
import Testing

@Suite struct VirtualDiskTests {
    @Test(
        arguments: [
            ("xvda", 51712), ("xvdb2", 51730), ("xvdp15", 51967), ("d0", 51712), ("d0p0", 51712), ("d1p2", 51730),
            // Beyond 16 disks or 15 partitions the other encoding begins.
            ("xvdq", 0x1000_1000), ("xvda16", 0x1000_0010), ("xvdz", 0x1000_1900), ("xvdaa", 0x1000_1A00),
            ("xvdtq37", 0x1002_1825), ("d536p37", 0x1002_1825), ("d1048575p255", 0x1FFF_FFFF),
            ("sda", 2048), ("sdb3", 2067), ("sdp15", 2303),
            ("hda", 768), ("hdb", 832), ("hdc", 5632), ("hdc2", 5634), ("hdd63", 5759),
            ("51712", 51712), ("0xca00", 51712), ("0145000", 51712), ("0", 0), ("536870911", 0x1FFF_FFFF),
        ] as [(String, UInt32)]
    )
    func reads(_ text: String, _ number: UInt32) {
        #expect(VirtualDisk(text)?.number == number)
    }

    @Test(arguments: [
        "", "x", "xvd", "xvdA", "xvda0", "xvda01", "xvda256", "xvda1x", "xvda-1", "xvdé", "d", "dp1", "d0p", "d00",
        "d1048576", "d0p256", "xvdbiqha", "sdq", "sda16", "hde", "hda64", "sr0", "08", "0x", "0x+1", "-1", "+1", " 1",
        "1 ", "536870912", "4294967296", "99999999999999999999", "0x20000000", "d99999999999", "/dev/xvda", "xvda\0",
    ])
    func refuses(_ text: String) { #expect(VirtualDisk(text) == nil) }

    @Test(
        arguments: [
            (51712, "xvda"), (51730, "xvdb2"), (0x1000_1000, "xvdq"), (0x1002_1825, "xvdtq37"), (2067, "sdb3"),
            (768, "hda"),
            (5634, "hdc2"),
            // No name is encoded so: the number stays.
            (0x1000_0000, "268435456"), (0, "0"), (3 << 8 | 2 << 6, "896"), (99, "99"),
        ] as [(UInt32, String)]
    )
    func names(_ number: UInt32, _ name: String) { #expect(VirtualDisk(number: number)?.name == name) }

    @Test func everyNameComesBack() {
        for disk in 0..<2000 {
            for partition in [0, 1, 15, 16, 255] {
                let one = VirtualDisk("d\(disk)p\(partition)")
                #expect(one != nil && VirtualDisk(one?.name ?? "") == one, "d\(disk)p\(partition)")
            }
        }
        #expect(VirtualDisk(number: 2 << 28) == nil)
    }
}
