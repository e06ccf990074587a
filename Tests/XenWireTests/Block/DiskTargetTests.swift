// What `params` may hold: the manuals' forms of a target, libxl's prefixes, and what is refused by name.

import Testing
import XenWire

@Suite struct DiskTargetTests {
    @Test(arguments: [
        // xl-disk-configuration(5): "/dev will be prepended if the path doesn't start with a '/'".
        ("/images/a.img", "/images/a.img", false), ("loop0", "/dev/loop0", false), ("vg/data", "/dev/vg/data", false),
        ("/dev/loop0", "/dev/loop0", false), ("a b.img", "/dev/a b.img", false),
        // What libxl writes for tap and qdisk, and what xm's lines have.
        ("aio:/a.img", "/a.img", false), ("raw:/a.img", "/a.img", false), ("phy:loop0", "/dev/loop0", false),
        ("phy:/dev/loop0", "/dev/loop0", false), ("file:/a.img", "/a.img", false), ("file://a.img", "//a.img", false),
        ("tap:aio:/a.img", "/a.img", false), ("tap2:tapdisk:aio:/a.img", "/a.img", false),
        ("ioemu:file:/a.iso", "/a.iso", false),
        // Ours.
        ("shared:/a.img", "/a.img", true), ("aio:shared:/a.img", "/a.img", true), ("shared:loop0", "/dev/loop0", true),
        ("shared:raw:vg/a", "/dev/vg/a", true),
        // A colon further on belongs to the path.
        ("/dev/disk/by-path/pci-0000:00:1f.2", "/dev/disk/by-path/pci-0000:00:1f.2", false),
        ("disk/by-path/pci-0000:00", "/dev/disk/by-path/pci-0000:00", false), ("/a:b", "/a:b", false),
        ("raw:/shared:x", "/shared:x", false), ("A:b", "/dev/A:b", false),
    ])
    func reads(_ params: String, _ path: String, _ isShared: Bool) throws {
        let target = try DiskTarget(parsing: params)
        #expect(target?.path == path)
        #expect(target?.isShared == isShared)
    }

    /// The line alone says what the bytes are.
    @Test(arguments: [
        ("/a.vhd", DiskTarget.Format.raw, "/a.vhd", false), ("raw:/a.qcow2", .raw, "/a.qcow2", false),
        ("vhd:/a.vhd", .vhd, "/a.vhd", false), ("qcow2:vg/a", .qcow2, "/dev/vg/a", false),
        // libxl with backendtype=tap and format=raw writes `aio:` before our own words; xm's lines have them all.
        ("aio:vhd:/a.vhd", .vhd, "/a.vhd", false), ("tap2:tapdisk:vhd:/a.vhd", .vhd, "/a.vhd", false),
        ("tap:vhd:/a.vhd", .vhd, "/a.vhd", false), ("tap2:qcow2:/a", .qcow2, "/a", false),
        ("shared:vhd:/a", .vhd, "/a", true), ("vhd:shared:/a", .vhd, "/a", true), ("vhd:vhd:/a", .vhd, "/a", false),
        ("raw:/vhd:/a", .raw, "/vhd:/a", false),
    ])
    func formats(_ params: String, _ format: DiskTarget.Format, _ path: String, _ isShared: Bool) throws {
        let target = try #require(try DiskTarget(parsing: params))
        #expect(target.format == format && target.path == path && target.isShared == isShared)
        #expect(try DiskTarget(parsing: target.text)?.format == format)
    }

    @Test(arguments: ["", "aio:", "shared:", "raw:phy:", "vhd:"])
    func isEmpty(_ params: String) throws { #expect(try DiskTarget(parsing: params) == nil) }

    @Test(arguments: [
        ("vmdk:/a.vmdk", "format vmdk is not served"), ("tap:qcow:/a", "format qcow is not served"),
        ("raw:vhd:/a", "'raw:vhd:…': two formats"), ("vhd:aio:qcow2:/a", "'vhd:qcow2:…': two formats"),
        ("nbd:host:10809", "nothing is called 'nbd' here"), ("shred:/a.img", "nothing is called 'shred' here"),
    ])
    func refuses(_ params: String, _ reason: String) {
        let fault = #expect(throws: DiskTargetFault.self) { try DiskTarget(parsing: params) }
        #expect(fault?.description.contains(reason) ?? false)
    }
}
