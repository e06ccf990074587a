// One message about a device: the kernel's own, or udev's after its rules were applied.

/// The fields of a uevent that are used.
///
/// The kernel sends `add@/devices/…` and then `KEY=value` texts, each ended by a NUL (lib/kobject_uevent.c,
/// `alloc_uevent_skb`). udev sends a header and the same texts (systemd, src/libsystemd/sd-device/device-monitor.c,
/// `monitor_netlink_header`).
struct Uevent: Hashable, Sendable {
    enum Sender: Hashable, Sendable {
        case kernel, udev
    }
    var sender: Sender
    var action: String
    var subsystem: String
    /// `usb_device` or `usb_interface`.
    var deviceType: String?

    /// Bytes of udev's header, and its magic number with the highest byte first.
    private static let headerBytes = 40
    private static let magic: UInt32 = 0xfeed_cafe

    /// Nil for a malformed message.
    init?(_ bytes: ArraySlice<UInt8>) {
        let texts: ArraySlice<UInt8>
        if bytes.starts(with: Array("libudev\0".utf8)) {
            guard let range = Uevent.properties(of: bytes) else { return nil }
            sender = .udev
            texts = bytes[range]
        } else {
            guard let end = bytes.firstIndex(of: 0), bytes[..<end].contains(UInt8(ascii: "@")) else { return nil }
            sender = .kernel
            texts = bytes[(end + 1)...]
        }
        // A text without its NUL was truncated.
        guard texts.last == 0 else { return nil }
        var values: [Substring: String] = [:]
        for text in texts.split(separator: 0) {
            let line = String(decoding: text, as: UTF8.self)
            guard let equals = line.firstIndex(of: "=") else { continue }
            values[line[..<equals]] = String(line[line.index(after: equals)...])
        }
        guard let action = values["ACTION"], let subsystem = values["SUBSYSTEM"] else { return nil }
        self.action = action
        self.subsystem = subsystem
        deviceType = values["DEVTYPE"]
    }

    /// Where udev's texts are.
    private static func properties(of bytes: ArraySlice<UInt8>) -> Range<Int>? {
        guard bytes.count >= headerBytes else { return nil }
        func word(_ offset: Int, isBig: Bool = false) -> UInt32 {
            (0..<4).reduce(0) { word, index in
                let byte = UInt32(bytes[bytes.startIndex + offset + index])
                return isBig ? word << 8 | byte : word | byte << (8 * UInt32(index))
            }
        }
        #if _endian(big)
            let isBig = true
        #else
            let isBig = false
        #endif
        let offset = Int(word(16, isBig: isBig))
        let length = Int(word(20, isBig: isBig))
        guard word(8, isBig: true) == magic, offset >= headerBytes, offset <= bytes.count,
            length > 0, length <= bytes.count - offset
        else { return nil }
        return bytes.startIndex + offset..<bytes.startIndex + offset + length
    }

    /// Whether the list of devices may have changed.
    ///
    /// Where udevd runs, an arrival counts once udevd reports it: by then its rules have been applied, and the receiver
    /// can open the device. A departure counts as soon as the kernel reports it.
    func isChange(hasUdev: @autoclosure () -> Bool) -> Bool {
        guard subsystem == "usb", deviceType == "usb_device" else { return false }
        return sender == .udev || action == "remove" || !hasUdev()
    }
}
