// Parent locators: where a differencing image says where its parent is, once for each platform.

/// The platforms (VHD format specification, "Parent Locator Entries").
package enum VHDPlatform: UInt32, Sendable {
    case none = 0
    /// `Wi2r`, deprecated.
    case oldWindowsRelative = 0x5769_3272
    /// `Wi2k`, deprecated.
    case oldWindowsAbsolute = 0x5769_326B
    /// `W2ru`: a relative path in UTF-16.
    case windowsRelative = 0x5732_7275
    /// `W2ku`: an absolute path in UTF-16; blktap writes the relative one here too.
    case windowsAbsolute = 0x5732_6B75
    /// `Mac `: an alias, which only a Mac can follow.
    case macAlias = 0x4D61_6320
    /// `MacX`: a URL in UTF-8.
    case macURL = 0x4D61_6358

    /// Whether what it holds is a path in a known encoding.
    package var hasPath: Bool { self == .windowsRelative || self == .windowsAbsolute || self == .macURL }
}

/// One of the header's eight entries.
package struct VHDLocator: Hashable, Sendable {
    package static let byteCount = 24
    /// The longest text that is read.
    private static let limit: UInt64 = 65536

    package var rawCode: UInt32
    /// Bytes of room, where the specification wants sectors: everybody writes bytes.
    package var dataSpace: UInt32
    package var dataLength: UInt32
    package var reserved: UInt32
    package var dataOffset: UInt64

    package var platform: VHDPlatform? { VHDPlatform(rawValue: rawCode) }
    package var isEmpty: Bool { rawCode == 0 }

    /// Room in bytes, whichever unit was meant: below 512 it can only be sectors. nil if it is neither.
    package var byteCount: UInt64? {
        if dataSpace < 512 { return UInt64(dataSpace) * 512 }
        return dataSpace % 512 == 0 ? UInt64(dataSpace) : nil
    }

    /// The bytes of its text, if they are where and as long as they may be.
    package func textRange(within fileSize: UInt64) throws(ImageFault) -> Range<UInt64> {
        guard let room = byteCount, room > 0, room <= VHDLocator.limit else {
            throw ImageFault(
                .corrupt,
                "parent locator: room of \(dataSpace) bytes is not a multiple of 512, up to 64 KiB"
            )
        }
        guard dataLength > 0, UInt64(dataLength) <= room else {
            throw ImageFault(.corrupt, "parent locator: \(dataLength) bytes of text in room for \(room)")
        }
        let (end, overflow) = dataOffset.addingReportingOverflow(UInt64(dataLength))
        guard dataOffset >= 512, !overflow, end <= fileSize else {
            throw ImageFault(.corrupt, "parent locator: its text at byte \(dataOffset) is not inside the file")
        }
        return dataOffset..<end
    }

    /// The paths that its text may mean, best first; none if it is no text or for another platform.
    package func paths(of text: [UInt8]) -> [String] {
        let found: [String]
        switch platform {
        case .macURL:
            found = String(validating: text.prefix { $0 != 0 }, as: UTF8.self).map(VHDText.paths(ofURL:)) ?? []
        case .windowsRelative, .windowsAbsolute:
            found = VHDText.decode(text, .little).map { [VHDText.path(ofWindows: $0)] } ?? []
        case .none?, .oldWindowsRelative, .oldWindowsAbsolute, .macAlias, nil: found = []
        }
        return found.filter { !$0.isEmpty && !$0.utf8.contains(0) }
    }

    /// The text for a path, as blktap writes it.
    package static func text(_ path: String, for platform: VHDPlatform) -> [UInt8] {
        platform == .macURL
            ? Array("file://\(path)".utf8) : VHDText.encode(VHDText.windows(ofPath: path), .little)
    }
}
