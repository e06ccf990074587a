// The disk line's grammar: xl's (tools/libs/util/libxlu_disk_l.l), in its own order of rules.

/// Reads one line. Every rule matches the start of what is left, removes it, and records its meaning.
struct DiskLineParser {
    private let line: String
    private var rest: Substring

    private var target: Substring?
    private var format: DiskLine.Format?
    private var vdev: VirtualDisk?
    private var access: DiskLine.Access?
    private var cdrom = false
    private var script: Substring?
    private var backend: Substring?
    private var backendType: DiskLine.BackendType?
    private var directIOSafe = false
    private var discard: Bool?
    private var trusted: Bool?
    /// A line with an old prefix has no format among its positional parameters.
    private var hadPrefix = false

    init(_ line: String) {
        self.line = line
        self.rest = line[...]
    }

    mutating func parse() throws(DeviceLineError) -> DiskLine {
        while true {
            rest = rest.drop { $0 == " " || $0 == "\t" || $0 == "\n" }
            guard !rest.isEmpty else { break }
            try parsePart()
        }
        if target == nil, !cdrom { throw error("no target: which image or device?", at: rest) }
        guard let vdev else { throw error("no vdev: which disk of the guest (xvda, sda, hdc)?", at: rest) }
        let isEmpty = (target ?? "").isEmpty
        if isEmpty, !cdrom { throw error("only a CD-ROM drive (devtype=cdrom) can be empty", at: rest) }
        return DiskLine(
            target: String(target ?? ""),
            format: isEmpty ? .empty : format.map { $0 == .empty ? .raw : $0 } ?? .raw,
            vdev: vdev,
            access: cdrom ? .readOnly : access ?? .readWrite,
            cdrom: cdrom,
            script: script.map(String.init),
            backendDomain: backend.map(String.init),
            backendType: backendType,
            directIOSafe: directIOSafe,
            discard: discard,
            trusted: trusted
        )
    }

    private mutating func parsePart() throws(DeviceLineError) {
        if rest.hasPrefix("target=") {
            // The one parameter that extends to the end of the line, commas included; xl drops one trailing comma.
            let value = rest.dropFirst("target=".count)
            rest = rest[rest.endIndex...]
            return try setTarget(value.last == "," ? value.dropLast() : value)
        }
        if try takePrefix() { return }
        let part = rest.prefix { $0 != "," }
        rest = rest[part.endIndex...].dropFirst()
        if try setFlag(part) { return }
        guard let equals = part.firstIndex(of: "=") else { return try setPositional(part) }
        try setParameter(String(part[..<equals]), part[part.index(after: equals)...], part)
    }

    // MARK: Old prefixes

    private static let plainPrefixes: Set<Substring> = ["tapdisk", "tap", "tap2", "aio", "ioemu", "file", "phy"]
    /// xl's, and the further drivers of xm's blktap.
    private static let formatPrefixes: Set<Substring> = [
        "raw", "qcow", "qcow2", "vhd", "vmdk", "ram", "sync", "remus", "log",
    ]
    private static let scriptPrefixes: Set<Substring> = ["iscsi", "nbd", "enbd", "drbd"]

    /// `tap2:tapdisk:aio:/a.img`: prefixes come one after the other, before the target.
    private mutating func takePrefix() throws(DeviceLineError) -> Bool {
        guard target == nil, let colon = rest.firstIndex(of: ":") else { return false }
        let name = rest[..<colon]
        guard let first = name.first, first.isASCII, first.isLowercase,
            name.allSatisfy({ $0.isASCII && ($0.isLowercase || $0.isNumber) })
        else { return false }
        if Self.plainPrefixes.contains(name) {
            hadPrefix = true
        } else if Self.formatPrefixes.contains(name) {
            hadPrefix = true
            try setFormat(name)
        } else if Self.scriptPrefixes.contains(name) {
            throw error("'\(name):' disks belong to the script block-\(name), not to xenback", at: name)
        } else if name == "shared" {
            throw error("'shared:' goes into the target: vdev=xvda,target=shared:/images/a.img", at: name)
        } else {
            throw error("unknown prefix '\(name):' (a target with a colon is written target=…)", at: name)
        }
        rest = rest[rest.index(after: colon)...]
        return true
    }

    // MARK: Parts

    private mutating func setFlag(_ part: Substring) throws(DeviceLineError) -> Bool {
        switch part {
        case "cdrom": cdrom = true
        case "direct-io-safe": directIOSafe = true
        case "discard": discard = true
        case "no-discard": discard = false
        case "trusted": trusted = true
        case "untrusted": trusted = false
        case "no-colo": break
        case "colo": throw error("COLO replication is not supported", at: part)
        default: return false
        }
        return true
    }

    private mutating func setPositional(_ part: Substring) throws(DeviceLineError) {
        if target == nil {
            try setTarget(part)
        } else if !hadPrefix, format == nil {
            // `,hdc:cdrom,r`: an empty drive leaves its format out.
            if target?.isEmpty == true, part.contains(":") {
                format = .empty
                return try setDeviceAndType(part)
            }
            try setFormat(part)
        } else if vdev == nil {
            try setDeviceAndType(part)
        } else if access == nil {
            try setAccess(part)
        } else if hadPrefix, backend == nil {
            // xm's fourth: the domain that serves it.
            backend = part
        } else {
            throw error("too many parameters: target,format,vdev,access is all", at: part)
        }
    }

    private mutating func setParameter(
        _ name: String,
        _ value: Substring,
        _ part: Substring
    ) throws(DeviceLineError) {
        switch name {
        case "format": try setFormat(value)
        case "vdev": try setDevice(value)
        case "access": try setAccess(value)
        case "devtype": try setDeviceType(value)
        case "script": script = try once(script, value, name)
        case "backend": backend = try once(backend, value, name)
        case "backendtype": try setBackendType(value)
        case "specification":
            guard value == "xen" else {
                throw error("only specification=xen is a paravirtual disk of Xen's", at: value)
            }
        case "grant_usage":
            guard value == "0" || value == "1" else { throw error("grant_usage is 0 or 1", at: value) }
        case "colo-host", "colo-port", "colo-export", "active-disk", "hidden-disk":
            throw error("COLO replication is not supported", at: part)
        default:
            let isName = name.utf8.allSatisfy {
                $0 == 0x2D || $0 == 0x5F || (0x30...0x39).contains($0) || (0x61...0x7A).contains($0)
            }
            if isName, !name.isEmpty { throw error("unknown parameter '\(name)'", at: part) }
            throw error("a target with '=' or ',' in it is written target=…, at the end of the line", at: part)
        }
    }

    // MARK: Values

    private mutating func setTarget(_ value: Substring) throws(DeviceLineError) {
        // As in xl, an empty target may be given again.
        if let target, !target.isEmpty { throw error("target given twice", at: value) }
        if value.utf8.contains(0) { throw error("a NUL character", at: value) }
        target = value
    }

    private mutating func setFormat(_ value: Substring) throws(DeviceLineError) {
        let new: DiskLine.Format
        switch value {
        case "", "raw": new = .raw
        case "empty": new = .empty
        case "qcow2": new = .qcow2
        case "vhd": new = .vhd
        case "qcow", "qed", "vmdk", "ram", "sync", "remus", "log":
            throw error("format \(value) is not served: raw, qcow2 and vhd are known", at: value)
        default: throw error("unknown format '\(value)': raw, qcow2 or vhd", at: value)
        }
        if let format, format != new { throw error("format given twice", at: value) }
        format = new
    }

    private mutating func setDeviceAndType(_ value: Substring) throws(DeviceLineError) {
        // xm's `ioemu:hda`: also emulated, which the toolstack decides today.
        let value = value.hasPrefix("ioemu:") ? value.dropFirst("ioemu:".count) : value
        guard let colon = value.lastIndex(of: ":") else { return try setDevice(value) }
        try setDevice(value[..<colon])
        try setDeviceType(value[value.index(after: colon)...])
    }

    private mutating func setDevice(_ value: Substring) throws(DeviceLineError) {
        if vdev != nil { throw error("vdev given twice", at: value) }
        // xm's manual, and so its users, write the guest's device node.
        let name = value.hasPrefix("/dev/") ? value.dropFirst("/dev/".count) : value
        guard let device = VirtualDisk(name) else {
            throw error("no disk of a guest is called '\(value)' (xvda, sda1, hdc, d0p0, 51712)", at: value)
        }
        vdev = device
    }

    private mutating func setDeviceType(_ value: Substring) throws(DeviceLineError) {
        switch value {
        case "cdrom": cdrom = true
        case "disk": cdrom = false
        default: throw error("devtype is cdrom or disk, not '\(value)'", at: value)
        }
    }

    private mutating func setAccess(_ value: Substring) throws(DeviceLineError) {
        switch value {
        case "r", "ro": access = .readOnly
        case "w", "rw", "": access = .readWrite
        case "w!", "!": access = .sharedWrite
        default: throw error("access is r, w or w!, not '\(value)'", at: value)
        }
    }

    private mutating func setBackendType(_ value: Substring) throws(DeviceLineError) {
        guard value != "standalone" else { throw error("a standalone disk has no backend of Xen's", at: value) }
        guard let new = DiskLine.BackendType(rawValue: String(value)) else {
            throw error("backendtype is phy, tap or qdisk, not '\(value)'", at: value)
        }
        if let backendType, backendType != new { throw error("backendtype given twice", at: value) }
        backendType = new
    }

    private func once(_ old: Substring?, _ new: Substring, _ name: String) throws(DeviceLineError) -> Substring? {
        if old != nil { throw error("\(name) given twice", at: new) }
        return new.isEmpty ? nil : new
    }

    private func error(_ reason: String, at part: Substring) -> DeviceLineError {
        DeviceLineError(
            "disk",
            line: line,
            reason: reason,
            position: line.distance(from: line.startIndex, to: part.startIndex)
        )
    }
}
