// An image with its parents: opened in the formats that the line and the children name, never probed.

internal import Glibc
internal import HostIO
public import ImageFormats
internal import SystemPackage

/// The formats of image files.
public enum ImageFormatName: String, Hashable, Sendable, CaseIterable {
    case raw
    case qcow2
}

/// Which files an image may name as its parents. An image comes from whoever made it, often a guest's owner: what it names
/// is opened only where the administrator keeps parents.
public struct ParentRules: Hashable, Sendable {
    /// Directories, with all that is in them. Empty: no image may have a parent.
    public var roots: [String]
    /// Files of a chain, the leaf included.
    public var depthLimit: Int

    public init(roots: [String] = [], depthLimit: Int = 31) {
        self.roots = roots
        self.depthLimit = depthLimit
    }
}

/// Open, locked files of a chain, the leaf first.
public final class ImageChain {
    public let images: [RawImage]
    public let formats: [any ImageFormat]
    /// Of the disk.
    public var byteCount: UInt64 { formats.first?.facts.byteCount ?? 0 }

    private init(_ images: [RawImage], _ formats: [any ImageFormat]) {
        self.images = images
        self.formats = formats
    }

    /// Opens a chain. It may block: call it off the loops.
    /// - Throws: what is wrong with which file of the chain.
    public static func open(
        _ path: String,
        as format: ImageFormatName,
        _ options: ImageOptions,
        _ rules: ParentRules
    ) throws(ImageFailure) -> ImageChain {
        var chain = ChainOpening(rules: rules)
        try chain.add(path, format, options)
        while let parent = chain.formats.last?.facts.parent { try chain.add(parent, options) }
        return ImageChain(chain.images, chain.formats)
    }

    /// An engine on these files; the chain must outlive it.
    /// - Parameter cacheBytes: of metadata in memory, for each file.
    public func makeEngine(cacheBytes: Int) throws(ImageFailure) -> ImageEngine {
        do throws(Errno) {
            var layers: [ImageEngine.Layer] = []
            for format in formats {
                layers.append(try ImageEngine.Layer(format, cachePages: cacheBytes / MetadataCache.pageBytes))
            }
            return try ImageEngine(layers, alignment: images.map(\.facts.logicalBlockSize).max() ?? 512)
        } catch {
            let text = "\(images[0].path): no memory for its metadata: \(error)"
            throw ImageFailure(images[0].path, .system(error), text)
        }
    }
}

/// A chain that is being opened.
private struct ChainOpening {
    let rules: ParentRules
    var images: [RawImage] = []
    var formats: [any ImageFormat] = []
    private var nodes: Set<StorageNode> = []

    init(rules: ParentRules) { self.rules = rules }

    /// The files so far, as people read them, before what is wrong.
    private func failure(_ path: String, _ text: String) -> ImageFailure {
        let trail = (images.map(\.path) + [path]).joined(separator: " <- ")
        return ImageFailure(path, .wrongKind, "\(trail): \(text)")
    }

    mutating func add(_ path: String, _ format: ImageFormatName, _ options: ImageOptions) throws(ImageFailure) {
        var options = options
        options.isContainer = true
        let site = try DiskSite.find(path)
        guard nodes.insert(site.node).inserted else {
            throw failure(path, "the chain comes back to a file that is in it already")
        }
        let image = try RawImage.open(site, options, namesHolder: true)
        do throws(ImageFault) {
            formats.append(try parse(image, format, writable: options.access != .readOnly))
        } catch {
            throw failure(path, "\(error)")
        }
        images.append(image)
    }

    private func parse(
        _ image: RawImage,
        _ format: ImageFormatName,
        writable: Bool
    ) throws(ImageFault) -> any ImageFormat {
        let file: ImageFile
        do throws(Errno) {
            file = try ImageFile(beside: image.file, byteCount: image.facts.byteCount, writable: writable)
        } catch { throw ImageFault(.storage(error), "cannot be opened again: \(error)") }
        switch format {
        case .raw: return RawFormat(byteCount: file.byteCount)
        case .qcow2 where !writable: return try QCOW2Format.open(file)
        case .qcow2:
            let isFile = image.facts.kind == .file
            return try QCOW2Format.open(forWriting: file, canGrow: isFile, canPunch: isFile && image.facts.canDiscard)
        }
    }

    // MARK: parents

    /// Adds the parent that the last file names.
    mutating func add(_ parent: ParentName, _ options: ImageOptions) throws(ImageFailure) {
        let name = parent.paths.first ?? ""
        guard images.count < rules.depthLimit else {
            throw failure(name, "the chain is longer than \(rules.depthLimit) files; commit some of them")
        }
        let path = try resolve(name)
        guard let word = parent.format else {
            throw failure(
                path,
                "its child does not say which format it has, and it is not guessed; qemu-img rebase -u -F FORMAT says it"
            )
        }
        guard let format = ImageFormatName(rawValue: word) else {
            throw failure(path, "its child says that it is \(Self.printable(word)), which is not served")
        }
        var reading = options
        reading.access = .readOnly
        reading.logicalBlockSize = nil
        try add(path, format, reading)
        try confine(path, images[images.count - 1])
    }

    /// A name in an image as a path: relative ones from the child's directory on.
    private func resolve(_ name: String) throws(ImageFailure) -> String {
        let beforeSlash = name.prefix { $0 != "/" }
        guard !name.isEmpty, !beforeSlash.contains(":"), !name.contains("\0") else {
            throw failure(Self.printable(name), "a parent is named by a path alone, not by a protocol")
        }
        let child = images[images.count - 1].path
        let path = name.hasPrefix("/") ? name : "\(Self.directory(of: child))/\(name)"
        guard let real = Self.real(Self.directory(of: path)) else {
            throw failure(Self.printable(path), "there is no such directory")
        }
        // Looked at before it is opened: opening alone can do things to devices.
        let last = path.split(separator: "/").last.map(String.init) ?? ""
        guard isAllowed("\(real)/\(last)"), last != "..", last != "." else { throw refusal(path) }
        return "\(real)/\(last)"
    }

    /// Whether what was opened is where its name said: a link leads elsewhere.
    private func confine(_ path: String, _ image: RawImage) throws(ImageFailure) {
        guard let real = Self.target(of: image.file.descriptor), isAllowed(real) else { throw refusal(path) }
    }

    private func isAllowed(_ path: String) -> Bool {
        rules.roots.contains { root in Self.real(root).map { path.hasPrefix($0 == "/" ? "/" : "\($0)/") } ?? false }
    }

    private func refusal(_ path: String) -> ImageFailure {
        let places = rules.roots.isEmpty ? "no directory is" : "only \(rules.roots.joined(separator: ", ")) are"
        return failure(Self.printable(path), "parents are opened in configured directories, and \(places)")
    }

    private static func directory(of path: String) -> String {
        guard let slash = path.lastIndex(of: "/") else { return "." }
        return slash == path.startIndex ? "/" : String(path[..<slash])
    }

    private static func real(_ path: String) -> String? {
        // SAFETY: realpath returns a string of malloc's, which is copied and freed here.
        guard let found = unsafe realpath(path, nil) else { return nil }
        defer { unsafe free(found) }
        return unsafe String(cString: found)
    }

    private static func target(of descriptor: CInt) -> String? {
        var bytes = [CChar](repeating: 0, count: Int(PATH_MAX))
        let count = unsafe readlink("/proc/self/fd/\(descriptor)", &bytes, bytes.count)
        guard count > 0, count < bytes.count else { return nil }
        return String(decoding: bytes.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// A name from an image, for a terminal.
    private static func printable(_ name: String) -> String {
        String(decoding: name.utf8.map { $0 < 32 || $0 == 127 ? 63 : $0 }, as: UTF8.self)
    }
}
