// The image: opened and locked off the loop, and what it means for requests.

internal import BackendCore
internal import DiskImages
internal import HostIO
internal import Hypervisor
internal import Logging
internal import XenWire

extension BlockBackend {
    /// How long a predecessor's I/O may hold the image: its process is dead, its lock goes with its last request.
    private static let lockPatience = Duration.seconds(30)

    /// What requests are validated against now.
    var currentLimits: BlockLimits { limits(of: medium) }

    func limits(of medium: BlockMedium?) -> BlockLimits {
        guard let facts = medium?.image.facts else { return BlockLimits(capacity: 0, isReadOnly: true) }
        var features: BlockLimits.Features = [.flush, .barrier]
        if facts.canDiscard, keys?.allowsDiscard ?? false, !isReadOnly {
            features.insert(.discard)
            if facts.canDiscardSecurely { features.insert(.secureDiscard) }
        }
        return BlockLimits(
            capacity: facts.sectorCount,
            isReadOnly: isReadOnly,
            features: features,
            maxIndirectSegments: BlockOffer.maxIndirectSegments,
            logicalBlockSize: facts.logicalBlockSize
        )
    }

    var isReadOnly: Bool { keys?.flags.contains(.readOnly) ?? true }

    func openBacking(isTakeover: Bool) async throws(BackendFailure) {
        guard let target = keys?.target else {
            if keys?.isCDROM ?? false { return }
            throw BackendFailure(.invalid, "no image: the key 'params' is empty")
        }
        medium = try await open(target, patience: isTakeover ? BlockBackend.lockPatience : .zero)
    }

    func closeBacking() { medium = nil }

    /// What the stock `block` script would have written; the toolstack looks for both.
    var announcement: [(String, String)]? {
        guard medium != nil || keys?.isCDROM ?? false else { return nil }
        return keys?.target.map { [(BlockKeys.physicalDevicePath, $0)] } ?? []
    }

    /// Opens and locks an image on a helper thread.
    /// - Parameter patience: how long to wait for its lock.
    func open(_ target: String, patience: Duration) async throws(BackendFailure) -> BlockMedium {
        let access: ImageOptions.Access = isReadOnly ? .readOnly : keys?.mayBeShared ?? false ? .shared : .exclusive
        let options = ImageOptions(access: access, owner: "\(path)", logicalBlockSize: offer.logicalBlockSize)
        do throws(ImageFailure) {
            let image = try await RawImage.open(target, options, patience: patience, on: environment.controlLoop)
            if case .notUsed(let reason) = image.directIO {
                life.logger.info("\(target): through the page cache: \(reason)")
            }
            return BlockMedium(image)
        } catch {
            throw BackendFailure(error)
        }
    }
}
