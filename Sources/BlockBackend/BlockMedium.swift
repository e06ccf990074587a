// What is in the drive: an open image and what can be done with it.

internal import BackendCore
internal import DiskImages
internal import HostIO
internal import XenWire

/// An open image as a queue uses it. The last reference closes it, and with it its lock.
struct BlockMedium: Sendable {
    let image: RawImage
    /// Kept beside the image: a turn needs it for each transfer.
    let file: OpenFile
    /// Transfers are plain copies, done synchronously.
    var isInMemory: Bool { file.isInMemory }

    init(_ image: RawImage) {
        self.image = image
        file = image.file
    }

    /// Starts a discard; the result is 0 or a negated `errno`.
    func discard(_ request: BlockRequest, on loop: EventLoop, target: TargetID, slot: UInt32) {
        image.discard(
            offset: request.byteOffset,
            length: request.byteCount,
            secure: request.kind == .secureDiscard,
            on: loop,
            target: target,
            slot: slot
        )
    }

    /// The same image with its present size.
    func measuredAgain(on loop: EventLoop) async throws(BackendFailure) -> BlockMedium {
        do throws(ImageFailure) {
            return BlockMedium(try await image.measuredAgain(on: loop))
        } catch {
            throw BackendFailure(error)
        }
    }
}

extension BackendFailure {
    /// - Parameter target: as the disk line has it.
    init(_ failure: ImageFailure, _ target: DiskTarget, mayPass: Bool) {
        let whole = BackendFailure(failure)
        let isDevice = failure.reason == .missing && target.path != target.name
        let note = " ('\(target.name)' has no / at its beginning, so it is looked for in /dev)"
        self.init(whole.kind, isDevice ? whole.text + note : whole.text, mayPass: mayPass)
    }

    init(_ failure: ImageFailure) {
        let kind: Kind =
            switch failure.reason {
            case .missing: .notFound
            case .notPermitted: .denied
            case .locked, .inUse: .busy
            case .wrongKind, .size: .invalid
            case .noMedium: .unsupported
            case .system: .host
            }
        self.init(kind, failure.message)
    }
}
