// Finding, claiming, opening and locking an image, waiting for a slow host.

internal import BackendCore
internal import DiskImages
internal import HostIO
internal import Hypervisor
internal import Logging
internal import SystemPackage
internal import XenWire

extension BlockBackend {
    /// How long a new disk waits for the last I/O of a holder that has died.
    private static let lockPatience = Duration.seconds(10)
    /// The lock usually comes free within milliseconds; after this, its holder is searched for.
    private static let usualWait = Duration.seconds(2)

    /// Opens and locks an image on helper threads.
    ///
    /// A disk that is taken over was admitted before: whatever keeps its image from being opened now (a lock held until
    /// the predecessor's last write completes, storage that is away or does not answer) is waited for without limit,
    /// because a frontend that sees its backend close gives up its disk.
    func open(_ target: DiskTarget, isTakeover: Bool) async throws(BackendFailure) -> BlockMedium {
        do throws(DiskTargetFault) { try target.requireServed() } catch {
            throw BackendFailure(.unsupported, "\(error)")
        }
        let start = ContinuousClock.now
        do throws(BackendFailure) {
            return try await wait(for: "the image", within: isTakeover ? nil : Self.lockPatience) {
                () async throws(BackendFailure) -> BlockMedium in
                let namesHolder = !isTakeover || start.duration(to: .now) > Self.usualWait
                return try await attempt(target, isTakeover: isTakeover, namesHolder: namesHolder)
            }
        } catch {
            if !isTakeover { await restoreClaim() }
            throw error
        }
    }

    private func attempt(
        _ target: DiskTarget,
        isTakeover: Bool,
        namesHolder: Bool
    ) async throws(BackendFailure) -> BlockMedium {
        /// A new disk waits only for a holder that cannot be found, because it has died.
        @Sendable func failure(_ failure: ImageFailure) -> BackendFailure {
            BackendFailure(failure, target, mayPass: isTakeover || failure.isLocked && failure.holder == nil)
        }
        let site = try await hostCall("the host's storage (finding \(target.path))") {
            Result { () throws(ImageFailure) in try DiskSite.find(target.path) }.mapError(failure)
        }
        let found = try site.get()
        let options = await options(target, found, isTakeover: isTakeover)
        let opened = try await hostCall("the host's storage (opening \(target.path))") {
            Result { () throws(ImageFailure) in try RawImage.open(found, options, namesHolder: namesHolder) }
                .mapError(failure)
        }
        let image = try opened.get()
        if isTakeover { await claim(found) }
        if case .notUsed(let reason) = image.directIO {
            life.logger.info("\(target.path): through the page cache: \(reason)")
        }
        return BlockMedium(image)
    }

    /// Who we are and who else may have the image. A new disk is claimed before the others are read: of two that do so
    /// at the same time, at least one sees the other.
    private func options(_ target: DiskTarget, _ site: DiskSite, isTakeover: Bool) async -> ImageOptions {
        let (path, own) = (path, environment.hypervisor.domains.own)
        let guest = await persist("read whose disk it is") { (store) throws(HypervisorFailure) in
            try BlockGuest.read(store, path.domain, own: own)
        }
        self.guest = guest
        var neighbours: [DiskNeighbour] = []
        if !isTakeover {
            await claim(site)
            neighbours = await persist("read the other disks") { (store) throws(HypervisorFailure) in
                try BlockNeighbours.read(store, but: path, of: guest, own: own)
            }
        }
        let isShared = target.isShared || keys?.mayBeShared ?? false
        return ImageOptions(
            access: isReadOnly ? .readOnly : isShared ? .shared : .exclusive,
            owner: "\(path)",
            guest: guest.identity,
            domain: path.domain.rawValue,
            logicalBlockSize: capabilities.logicalBlockSize,
            // A device model opens the image of a fully virtual guest; in a driver domain there is none.
            keepsQEMUOut: own != .initial || guest.isFullyVirtual == false,
            neighbours: neighbours,
            isTakeover: isTakeover
        )
    }

    /// Claims the image that is still in the drive again, or none.
    private func restoreClaim() async {
        guard let path = medium?.image.path else { return await claim(nil) }
        let find = { @Sendable in try? DiskSite.find(path) }
        if let site = try? await hostCall("the host's storage (finding \(path))", find) { await claim(site) }
    }
}
