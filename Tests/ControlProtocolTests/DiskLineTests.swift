// Disk lines: xl's new and old syntax, xm's tuples, and errors that show the place.

import ControlProtocol
import Testing

@Suite struct DiskLineTests {
    private static let xvda = VirtualDisk("xvda")!
    private static let hdc = VirtualDisk("hdc")!

    @Test(arguments: [
        ("/a.img,raw,xvda,rw", DiskLine(target: "/a.img", vdev: xvda)),
        ("/a.img,,xvda", DiskLine(target: "/a.img", vdev: xvda)),
        ("/a.img,,xvda,", DiskLine(target: "/a.img", vdev: xvda)),
        ("/a.img,raw,xvda,r", DiskLine(target: "/a.img", vdev: xvda, access: .readOnly)),
        ("/a.img,raw,xvda,w!", DiskLine(target: "/a.img", vdev: xvda, access: .sharedWrite)),
        ("vdev=xvda,target=/a.img", DiskLine(target: "/a.img", vdev: xvda)),
        (
            " vdev=xvda, format=raw,\taccess=ro, target=/a.img",
            DiskLine(target: "/a.img", vdev: xvda, access: .readOnly)
        ),
        // target= takes the rest of the line, whatever is in it, but for one comma at the end.
        ("vdev=xvda,target=/a,b=c:d.img,vdev=xvdb", DiskLine(target: "/a,b=c:d.img,vdev=xvdb", vdev: xvda)),
        ("vdev=xvda,target=/a.img,", DiskLine(target: "/a.img", vdev: xvda)),
        ("/a b.img,raw,xvda", DiskLine(target: "/a b.img", vdev: xvda)),
        // Positional and named ones mix: what is given by name is not looked for by place.
        ("format=raw,/a.img,xvda,r", DiskLine(target: "/a.img", vdev: xvda, access: .readOnly)),
        ("vdev=xvda,/a.img,raw,r", DiskLine(target: "/a.img", vdev: xvda, access: .readOnly)),
        (
            "vdev=xvda,format=raw,script=block-xenback,target=/images/a.img",
            DiskLine(target: "/images/a.img", vdev: xvda, script: "block-xenback")
        ),
        (
            "/a.img,raw,xvda,rw,backend=disks,backendtype=tap,direct-io-safe,no-discard,untrusted",
            DiskLine(
                target: "/a.img",
                vdev: xvda,
                backendDomain: "disks",
                backendType: .tap,
                directIOSafe: true,
                discard: false,
                trusted: false
            )
        ),
        ("/a.img,raw,xvda,w,discard,trusted", DiskLine(target: "/a.img", vdev: xvda, discard: true, trusted: true)),
        ("/a.img,raw,xvda,specification=xen,grant_usage=1,no-colo", DiskLine(target: "/a.img", vdev: xvda)),
        // CD-ROM drives: full, empty, with the old suffix. Never writable.
        ("/a.iso,raw,hdc,devtype=cdrom", DiskLine(target: "/a.iso", vdev: hdc, access: .readOnly, cdrom: true)),
        ("/a.iso,raw,hdc:cdrom,w", DiskLine(target: "/a.iso", vdev: hdc, access: .readOnly, cdrom: true)),
        (",,hdc,cdrom", DiskLine(target: "", format: .empty, vdev: hdc, access: .readOnly, cdrom: true)),
        (",hdc:cdrom,r", DiskLine(target: "", format: .empty, vdev: hdc, access: .readOnly, cdrom: true)),
        ("vdev=hdc,devtype=cdrom", DiskLine(target: "", format: .empty, vdev: hdc, access: .readOnly, cdrom: true)),
        (
            "devtype=cdrom,vdev=hdc,target=",
            DiskLine(target: "", format: .empty, vdev: hdc, access: .readOnly, cdrom: true)
        ),
        // xm's tuples: the prefixes say nothing but raw, and there is no format by place.
        ("phy:/dev/vg/a,xvda,w", DiskLine(target: "/dev/vg/a", vdev: xvda)),
        ("file:/a.img,xvda,r", DiskLine(target: "/a.img", vdev: xvda, access: .readOnly)),
        ("tap:aio:/a.img,xvda,w", DiskLine(target: "/a.img", vdev: xvda)),
        ("tap2:tapdisk:aio:/a.img,xvda,w", DiskLine(target: "/a.img", vdev: xvda)),
        ("tap2:aio:/a.img,xvda,w!", DiskLine(target: "/a.img", vdev: xvda, access: .sharedWrite)),
        ("raw:/a.img,xvda", DiskLine(target: "/a.img", vdev: xvda)),
        ("tap2:tapdisk:vhd:/a.vhd,xvda,w", DiskLine(target: "/a.vhd", format: .vhd, vdev: xvda)),
        ("tap:vhd:/a.vhd,xvda,r", DiskLine(target: "/a.vhd", format: .vhd, vdev: xvda, access: .readOnly)),
        ("tap2:qcow2:/a.img,xvda,w", DiskLine(target: "/a.img", format: .qcow2, vdev: xvda)),
        ("vhd:/a.vhd,xvda", DiskLine(target: "/a.vhd", format: .vhd, vdev: xvda)),
        ("/a.img,qcow2,xvda", DiskLine(target: "/a.img", format: .qcow2, vdev: xvda)),
        ("format=vhd,vdev=xvda,target=/a,b.vhd", DiskLine(target: "/a,b.vhd", format: .vhd, vdev: xvda)),
        ("format=raw,vdev=xvda,target=vhd:/a.vhd", DiskLine(target: "vhd:/a.vhd", vdev: xvda)),
        ("ioemu:file:/a.iso,hdc:cdrom,r", DiskLine(target: "/a.iso", vdev: hdc, access: .readOnly, cdrom: true)),
    ])
    func reads(_ line: String, _ expected: DiskLine) throws {
        #expect(try DiskLine(parsing: line) == expected)
    }

    @Test(arguments: [
        ("", "no target", 0), ("   ", "no target", 3), (",", "no vdev", 1), ("/a.img", "no vdev", 6),
        (",,xvda", "only a CD-ROM drive", 6), ("vdev=xvda", "no target", 9), ("vdev=xvda,target=", "only a CD-ROM", 17),
        ("/a.img,qed,xvda", "format qed is not served", 7), ("/a.img,rwa,xvda", "unknown format 'rwa'", 7),
        ("/a.img,raw,xvdA,w", "no disk of a guest is called 'xvdA'", 11),
        ("/a.img,raw,xvda,x", "access is r, w or w!, not 'x'", 16),
        ("/a.img,raw,xvda,w,more", "too many parameters", 18),
        ("/a.img,raw,xvda,acces=r", "unknown parameter 'acces'", 16),
        ("/a=b.img,raw,xvda", "a target with '='", 0), ("=,raw,xvda", "a target with '='", 0),
        ("vdev=xvda,vdev=xvdb,target=/a", "vdev given twice", 15),
        ("/a.img,raw,xvda,target=/b", "target given twice", 23),
        ("script=a,script=b,vdev=xvda,target=/b", "script given twice", 16),
        ("/a.img,raw,xvda,format=empty", "format given twice", 23),
        ("/a.img,raw,xvda,devtype=tape", "devtype is cdrom or disk, not 'tape'", 24),
        ("/a.img,raw,xvda,backendtype=nbd", "backendtype is phy, tap or qdisk, not 'nbd'", 28),
        ("/a.img,raw,xvda,backendtype=standalone", "a standalone disk has no backend", 28),
        ("/a.img,raw,xvda,specification=virtio", "only specification=xen", 30),
        ("/a.img,raw,xvda,colo", "COLO", 16), ("/a.img,raw,xvda,colo-port=7", "COLO", 16),
        ("tap2:tapdisk:vmdk:/a,xvda,w", "format vmdk is not served", 13),
        ("tap:vhd:qcow2:/a,xvda,w", "format given twice", 8),
        ("tap2:remus:/a.img,xvda,w", "format remus is not served", 5),
        ("tap2:floppy:/a.img,xvda,w", "unknown prefix 'floppy:'", 5),
        ("iscsi:iqn.x,xvda,w", "belong to the script block-iscsi", 0),
        ("phy:/dev/a,raw,xvda,w", "no disk of a guest is called 'raw'", 11),
        ("/ü/a.img,qcow,xvda", "format qcow is not served", 9),
    ])
    func refuses(_ line: String, _ reason: String, _ position: Int) {
        do throws(DeviceLineError) {
            let parsed = try DiskLine(parsing: line)
            Issue.record("read as \(parsed)")
        } catch {
            #expect(error.reason.contains(reason), "\(error)")
            #expect(error.position == position, "\(error)")
            #expect(error.description.hasSuffix("\n  \(line)\n  \(String(repeating: " ", count: position))^"))
        }
    }

    /// Whatever is cut, doubled or exchanged: a disk or an error, never a trap, and the place is inside the line.
    @Test func noLineTraps() {
        let parts = [
            ",", "=", ":", " ", "!", "target=", "vdev=", "format=", "raw", "xvda", "/a", "tap2:", "aio:", "cdrom", "r",
            "w!", "é", "\0", "devtype=", "hdc:cdrom", "0", "script=", "\u{301}", "\r\n", "access=",
        ]
        var generator = SystemRandomNumberGenerator()
        for _ in 0..<5000 {
            let count = Int.random(in: 0...8, using: &generator)
            let line = (0..<count).map { _ in parts[Int.random(in: 0..<parts.count, using: &generator)] }.joined()
            do throws(DeviceLineError) {
                let disk = try DiskLine(parsing: line)
                if !disk.cdrom, disk.target.isEmpty { Issue.record("\(line)") }
            } catch {
                if error.position < 0 || error.position > line.count { Issue.record("\(line)") }
            }
        }
    }
}
