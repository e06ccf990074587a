// Every form of a disk line in the manuals, by manual: what each becomes, or the name of what cannot be served.

import ControlProtocol
import Testing

@Suite struct ManualLinesTests {
    /// What a line becomes: target, device, access, CD-ROM.
    typealias Row = (line: String, target: String, vdev: String, access: DiskLine.Access, isCDROM: Bool)

    /// xl-disk-configuration(5) of Xen 4.17 … 4.20, xl.cfg(5), xl(1) block-attach.
    static let xl: [Row] = [
        ("/dev/vg/guest-volume,,hda", "/dev/vg/guest-volume", "hda", .readWrite, false),
        ("/dev/vg/guest-volume,raw,hda,rw", "/dev/vg/guest-volume", "hda", .readWrite, false),
        (
            "format=raw, vdev=hda, access=rw, target=/dev/vg/guest-volume", "/dev/vg/guest-volume", "hda", .readWrite,
            false
        ),
        ("raw:/dev/vg/guest-volume,hda,w", "/dev/vg/guest-volume", "hda", .readWrite, false),
        ("/root/image.iso,,hdc,cdrom", "/root/image.iso", "hdc", .readOnly, true),
        ("/root/image.iso,,hdc,,cdrom", "/root/image.iso", "hdc", .readOnly, true),
        ("/root/image.iso,raw,hdc,devtype=cdrom", "/root/image.iso", "hdc", .readOnly, true),
        (
            "format=raw, vdev=hdc, access=ro, devtype=cdrom, target=/root/image.iso", "/root/image.iso", "hdc",
            .readOnly, true
        ),
        ("raw:/root/image.iso,hdc:cdrom,ro", "/root/image.iso", "hdc", .readOnly, true),
        ("/dev/vg/guest-volume,raw,xvda,w", "/dev/vg/guest-volume", "xvda", .readWrite, false),
        (
            "format=raw, vdev=xvda, access=w, backendtype=tap, target=/images/a.img", "/images/a.img", "xvda",
            .readWrite, false
        ),
        ("vdev=xvda,format=raw,script=block-xenback,target=loop0", "loop0", "xvda", .readWrite, false),
        (
            "vdev=xvda,format=raw,script=block-xenback,target=shared:/dev/vg/a", "shared:/dev/vg/a", "xvda", .readWrite,
            false
        ),
        ("loop0,,xvda", "loop0", "xvda", .readWrite, false),
        ("/a.img,raw,51712,r", "/a.img", "xvda", .readOnly, false),
        ("/a.img,raw,0xca00,ro", "/a.img", "xvda", .readOnly, false),
        ("/a.img,raw,d0,rw", "/a.img", "xvda", .readWrite, false),
        ("/a.img,raw,sda1,rw", "/a.img", "sda1", .readWrite, false),
        ("/a.img,raw,xvda,rw,direct-io-safe,discard", "/a.img", "xvda", .readWrite, false),
        (",empty,hdc,cdrom", "", "hdc", .readOnly, true),
    ]

    /// xm(1) and xmdomain.cfg(5) of Xen 3 and 4.0, xmexample1 … 3, xmexample.hvm, the users' manual.
    static let xm: [Row] = [
        ("phy:loop0,xvda,w", "loop0", "xvda", .readWrite, false),
        ("phy:hda1,hda1,w", "hda1", "hda1", .readWrite, false),
        ("phy:sda7,sda1,w", "sda7", "sda1", .readWrite, false),
        ("phy:sda6,sda6,r", "sda6", "sda6", .readOnly, false),
        ("phy:vg/myvmdisk1,sda1,w", "vg/myvmdisk1", "sda1", .readWrite, false),
        ("phy:/dev/vg/a,/dev/sda1,w", "/dev/vg/a", "sda1", .readWrite, false),
        ("phy:/dev/vg/a,ioemu:hda,w", "/dev/vg/a", "hda", .readWrite, false),
        ("phy:/dev/vg/a,0x301,w", "/dev/vg/a", "hda1", .readWrite, false),
        ("phy:/dev/vg/a,xvda,w!", "/dev/vg/a", "xvda", .sharedWrite, false),
        ("phy:/dev/cdrom,hdc:cdrom,r", "/dev/cdrom", "hdc", .readOnly, true),
        ("file:/full/path/to/vm1disk,sda1,w", "/full/path/to/vm1disk", "sda1", .readWrite, false),
        ("file:/var/images/min-el3-i386.img,hda,w", "/var/images/min-el3-i386.img", "hda", .readWrite, false),
        ("file:/var/images/min-el3-i386.img,ioemu:hda,w", "/var/images/min-el3-i386.img", "hda", .readWrite, false),
        ("tap:aio:/a.img,xvda1,w", "/a.img", "xvda1", .readWrite, false),
        ("tap2:aio:/a.img,xvda1,w", "/a.img", "xvda1", .readWrite, false),
        ("tap2:tapdisk:aio:/a.img,xvda,w", "/a.img", "xvda", .readWrite, false),
        (",hdc:cdrom,r", "", "hdc", .readOnly, true),
    ]

    @Test(arguments: [xl, xm])
    func everyFormIsRead(_ rows: [Row]) throws {
        for row in rows {
            let disk = try DiskLine(parsing: row.line)
            #expect(disk.target == row.target, "\(row.line)")
            #expect(disk.vdev.name == row.vdev, "\(row.line)")
            #expect(disk.access == row.access, "\(row.line)")
            #expect(disk.cdrom == row.isCDROM, "\(row.line)")
        }
    }

    /// `xm block-attach <Domain> <BackDev> <FrontDev> <Mode> [BackDomain]`, `xl block-attach <Domain> <spec>…`.
    @Test(arguments: [
        (["phy:/dev/loop0", "/dev/xvdb", "r"], "/dev/loop0", "xvdb", DiskLine.Access.readOnly, String?.none),
        (["phy:/dev/sda7", "/dev/hdb", "w", "0"], "/dev/sda7", "hdb", .readWrite, "0"),
        (["file://path/to/dsl-2.0RC2.iso", "/dev/hdc", "ro"], "//path/to/dsl-2.0RC2.iso", "hdc", .readOnly, nil),
        (["phy:/dev/loop0", "0x1400", "w", "disks"], "/dev/loop0", "5120", .readWrite, "disks"),
        (["tap2:tapdisk:aio:/a.img", "xvdb", "w!"], "/a.img", "xvdb", .sharedWrite, nil),
        (["/a.img,raw,xvdb,rw"], "/a.img", "xvdb", .readWrite, nil),
        (["/a.img", "raw", "xvdb", "r"], "/a.img", "xvdb", .readOnly, nil),
        (["vdev=xvdb", "target=/a,b.img", "access=ro"], "/a,b.img", "xvdb", .readOnly, nil),
    ])
    func commandLine(
        _ words: [String],
        _ target: String,
        _ vdev: String,
        _ access: DiskLine.Access,
        _ backend: String?
    ) throws {
        let disk = try DiskLine(parsing: DiskLine.joined(words))
        #expect(disk.target == target && disk.vdev.name == vdev && disk.access == access)
        #expect(disk.backendDomain == backend)
    }

    /// What the manuals have and nobody serves here is refused by its name.
    @Test(arguments: [
        ("tap:qcow:/a.qcow,xvda,w", "qcow"), ("tap:vmdk:/a.vmdk,xvda,w", "vmdk"), ("tap:ram:/a,xvda,w", "ram"),
        ("tap:sync:/a.img,xvda,w", "sync"), ("tap2:tapdisk:remus:host:9000|aio:/a,xvda,w", "remus"),
        ("/a.qed,qed,xvda,w", "qed"),
        ("nbd:192.168.0.1 20004,xvda,w", "nbd"), ("enbd:8889,xvda,w", "enbd"),
        ("iscsi:iqn.2001-05.com:x,xvda,w", "iscsi"),
        ("drbd:resource,xvda,w", "drbd"), ("npiv:50:01,xvda,w", "npiv"), ("shared:/a.img,raw,xvda,w", "target=shared:"),
        ("/a.img,raw,xvda,backendtype=standalone,specification=virtio", "standalone"),
        ("/a.img,raw,xvda,w,colo,colo-host=a,colo-port=1,colo-export=b", "COLO"),
    ])
    func refusedByName(_ line: String, _ name: String) {
        let error = #expect(throws: DeviceLineError.self) { try DiskLine(parsing: line) }
        #expect(error?.reason.contains(name) ?? false, "\(String(describing: error))")
    }
}
