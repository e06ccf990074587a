// What vhd-util is asked: a check of one image, names that match, times in words.

internal import Glibc
package import ImageFormats
internal import SystemPackage

/// What a check of one file found.
package struct VHDCheckResult: Sendable {
    package var problems: [VHDProblem]
    package var isDifferencing: Bool
    /// 0 for a fixed image.
    package var totalBlocks: UInt64
    package var usedBlocks: UInt64
    package var sectorsPerBlock: UInt64
    package var presentSectors: UInt64
}

extension VHDTools {
    /// Checks one file, whoever has it open. Its parents are not looked at.
    package static func check(_ path: String, _ options: VHDCheckOptions) throws(VHDFailure) -> VHDCheckResult {
        let storage = try VHDFile.storage(path, isWritable: false)
        do throws(ImageFault) {
            let check = try VHDCheck(storage, options)
            return VHDCheckResult(
                problems: check.problems,
                isDifferencing: check.footer?.kind == .differencing,
                totalBlocks: check.totalBlocks,
                usedBlocks: check.usedBlocks,
                sectorsPerBlock: UInt64(check.header?.blockSize ?? 0) / 512,
                presentSectors: check.presentSectors
            )
        } catch { throw VHDFailure(path, error) }
    }

    /// The files that a shell's pattern stands for, sorted.
    package static func matching(_ pattern: String) -> [String] {
        var found = unsafe glob_t()
        defer { unsafe globfree(&found) }
        guard unsafe glob(pattern, GLOB_BRACE, nil, &found) == 0 else { return [] }
        // SAFETY: glob filled in gl_pathc strings, which live until globfree.
        return unsafe (0..<Int(found.gl_pathc)).compactMap { index in
            unsafe found.gl_pathv[index].map { unsafe String(cString: $0) }
        }
    }

    /// As ctime(3), in the local time zone.
    package static func date(_ unix: Int64) -> String {
        var seconds = time_t(unix)
        var parts = unsafe tm()
        guard unsafe localtime_r(&seconds, &parts) != nil else { return "\(unix)" }
        var text = [CChar](repeating: 0, count: 64)
        let count = unsafe strftime(&text, text.count, "%a %b %e %H:%M:%S %Y", &parts)
        return String(decoding: text.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
