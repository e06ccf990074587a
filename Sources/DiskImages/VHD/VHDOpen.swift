// Opening VHDs for tools: reading beside whoever has them, writing only alone.

internal import Glibc
internal import HostIO
package import ImageFormats
internal import SystemPackage

extension VHDFile {
    /// Opens an image.
    ///
    /// For reading it is not locked: toolstacks look at the images of running guests. For writing it is, and whoever has
    /// it is named.
    package static func open(_ path: String, _ opening: VHDOpening = []) throws(VHDFailure) -> VHDFile {
        try VHDFile(path, try storage(path, isWritable: opening.contains(.writing)), opening)
    }

    /// The file that an image is in, or a raw one, as tools open it.
    static func storage(_ path: String, isWritable: Bool) throws(VHDFailure) -> VHDFileStorage {
        if !isWritable {
            do throws(Errno) {
                // Without waiting at a pipe.
                let storage = try VHDFileStorage(try OpenFile(path: path, flags: O_RDONLY | O_NONBLOCK))
                guard storage.isImage else { throw Errno.invalidArgument }
                return storage
            } catch {
                throw VHDFailure(path, "cannot be opened", error)
            }
        }
        let file: OpenFile
        do throws(ImageFailure) {
            let options = ImageOptions(access: .exclusive, owner: "vhd-util of process \(getpid())", keepsQEMUOut: true)
            file = try ImageProbe(try DiskSite.find(path), options, KernelStorage(), namesHolder: true).file
        } catch {
            throw VHDFailure(error)
        }
        do throws(Errno) { return try VHDFileStorage(file) } catch { throw VHDFailure(path, "cannot be opened", error) }
    }
}

extension VHDFailure {
    /// What a refusal is in vhd-util's numbers.
    init(_ failure: ImageFailure) {
        let errno: Errno =
            switch failure.reason {
            case .missing: .noSuchFileOrDirectory
            case .notPermitted: .permissionDenied
            case .wrongKind, .size: .invalidArgument
            case .locked, .inUse: .resourceBusy
            case .noMedium: Errno(rawValue: ENOMEDIUM)
            case .system(let errno): errno
            }
        let name = failure.path + ": "
        let text = failure.message
        self.init(failure.path, errno, text.hasPrefix(name) ? String(text.dropFirst(name.count)) : text)
    }
}
