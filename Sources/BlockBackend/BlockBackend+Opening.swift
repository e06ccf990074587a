// Finding, claiming, opening and locking an image, with patience for what the host does late.

internal import BackendCore
internal import DiskImages
internal import HostIO
internal import Hypervisor
internal import Logging
internal import SystemPackage
internal import XenWire

/// A wait for the host: `show` has it at once, the log after a second and then once a minute.
struct HostWait: Sendable {
    var what: String
    private let start = ContinuousClock.now
    private var nextLine = ContinuousClock.now + .seconds(1)

    init(_ what: String) { self.what = what }

    /// Whether it is time for a line in the log.
    var isLineDue: Bool { ContinuousClock.now >= nextLine }

    /// The line, if it is time for one.
    mutating func line() -> String? {
        let now = ContinuousClock.now
        guard now >= nextLine else { return nil }
        nextLine = now + .seconds(60)
        return "still waiting for \(what), for \(start.duration(to: now).components.seconds) s now"
    }
}

extension BlockBackend {
    /// How long a new disk waits for the last I/O of a holder that has died.
    private static let lockPatience = Duration.seconds(10)
    private static let lookEvery = Duration.seconds(1)

    /// Opens and locks an image on helper threads.
    ///
    /// A disk that is taken over was let in before: whatever keeps its image from being opened now, a lock that the last
    /// write of the predecessor still holds, storage that is away or does not answer, is waited for without limit, since
    /// a frontend that sees its backend close gives its disk up.
    func open(_ target: DiskTarget, isTakeover: Bool) async throws(BackendFailure) -> BlockMedium {
        let patience = ContinuousClock.now + Self.lockPatience
        var pause = Duration.milliseconds(2)
        defer { wait = nil }
        while true {
            let failure: ImageFailure
            do throws(ImageFailure) {
                return try await attempt(target, isTakeover: isTakeover)
            } catch {
                failure = error
            }
            let isPassing = failure.isLocked && failure.holder == nil && ContinuousClock.now < patience
            guard isTakeover || isPassing, !isOver else {
                if !isTakeover { await restoreClaim() }
                throw BackendFailure(failure, target)
            }
            waits(for: "the image (\(failure))")
            await environment.controlLoop.sleep(for: pause)
            pause = min(pause * 6 / 5, .milliseconds(250))
        }
    }

    private func waits(for what: String) {
        wait = wait ?? HostWait(what)
        wait?.what = what
        if let line = wait?.line() { life.logger.warning("\(line)") }
    }

    private func attempt(_ target: DiskTarget, isTakeover: Bool) async throws(ImageFailure) -> BlockMedium {
        let site = try await onHelper("finding \(target.path)") { () throws(ImageFailure) in
            try DiskSite.find(target.path)
        }
        let options = await options(target, site, isTakeover: isTakeover)
        // A predecessor's lock is gone in milliseconds; who else has it is worth a search once a line is due.
        let namesHolder = !isTakeover || wait?.isLineDue ?? false
        let image = try await onHelper("opening \(target.path)") { () throws(ImageFailure) in
            try RawImage.open(site, options, namesHolder: namesHolder)
        }
        if isTakeover { await claim(site) }
        if case .notUsed(let reason) = image.directIO {
            life.logger.info("\(target.path): through the page cache: \(reason)")
        }
        return BlockMedium(image)
    }

    /// Who we are and who else may have the image. A new disk is claimed before it looks at the others: of two that look
    /// at the same time at least one sees the other.
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
            logicalBlockSize: offer.logicalBlockSize,
            // A device model opens the image of a fully virtual guest; in a driver domain there is none.
            keepsQEMUOut: own != .initial || guest.isFullyVirtual == false,
            neighbours: neighbours,
            isTakeover: isTakeover
        )
    }

    /// The image that is still in, or none.
    private func restoreClaim() async {
        guard let medium else { return await claim(nil) }
        if let site = try? await onHelper(
            "finding \(medium.image.path)",
            { () throws(ImageFailure) in
                try DiskSite.find(medium.image.path)
            }
        ) {
            await claim(site)
        }
    }

    /// Runs `work`, which may hang with the host's storage, until it is done or nobody needs it any more.
    private func onHelper<R: Sendable>(
        _ what: String,
        _ work: @escaping @Sendable () throws(ImageFailure) -> R
    ) async throws(ImageFailure) -> R {
        let result = await environment.controlLoop.blocking(
            { () -> Result<R, ImageFailure> in Result { () throws(ImageFailure) in try work() } },
            every: Self.lookEvery
        ) {
            if isOver { return false }
            waits(for: "the host's storage (\(what))")
            return true
        }
        guard let result else { throw ImageFailure.abandoned(path: "\(path)", what) }
        return try result.get()
    }

    /// Nobody waits for the image any more.
    private var isOver: Bool {
        life.isFinished || life.isDraining || life.snapshot.map { $0.backend == nil || $0.backend == .closed } ?? false
    }
}
