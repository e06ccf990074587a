// How many pages of a guest may be mapped: its own limit, the host's, and the kernel's number of mappings (XSA-300).

internal import Glibc
internal import HostIO
internal import Synchronization
public import SystemPackage
public import XenWire

/// The pages that one worker maps of its guest. Mappings cost the host memory for page tables and, in a paravirtualised
/// domain 0, pages of its own; without limits a guest with many disks could exhaust it.
///
/// Data (persistent grants) is refused before rings are, and then copied instead. Thread-safe.
public final class GrantBudget: Sendable {
    /// What a mapping is for.
    public enum Use: Sendable {
        case ring
        /// Can be copied instead.
        case data
    }

    public struct Limits: Hashable, Sendable {
        /// Pages of this guest.
        public var guestPages: Int
        /// Pages of all guests of this host.
        public var hostPages: Int
        /// Mappings of this process (`vm.max_map_count` and what else it maps).
        public var mappings: Int

        public init(guestPages: Int, hostPages: Int, mappings: Int) {
            self.guestPages = guestPages
            self.hostPages = hostPages
            self.mappings = mappings
        }

        /// The part of a limit that is reserved for rings.
        static func reserve(of limit: Int) -> Int { min(limit / 8, 1024) }

        /// The kernel's limit for a process, minus what a worker needs for itself.
        public static func mappings(ofKernelLimit limit: Int) -> Int { limit - min(limit / 4, 4096) }

        /// The same for the running kernel.
        public static var mappingsHere: Int {
            let bytes = (try? Files.contents(of: "/proc/sys/vm/max_map_count", limit: 32)) ?? []
            let digits = bytes.prefix { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
            return mappings(ofKernelLimit: Int(String(decoding: digits, as: UTF8.self)) ?? 65530)
        }
    }

    /// Why a mapping is refused, with the cure.
    public struct Refusal: Error, Hashable, Sendable, CustomStringConvertible {
        public let description: String
    }

    /// What `Refusal` is as an errno: EDQUOT.
    public static var refused: Errno { Errno(rawValue: EDQUOT) }

    /// Pages reserved at a time, so that the workers' shares are not added up for every page.
    static let chunk = 64
    /// How long the host's limit is not checked again after it refused data, in nanoseconds.
    private static let rest: UInt64 = 100_000_000

    private struct State {
        var pages = 0
        var mappings = 0
        var reserved = 0
        var nextQuestion: UInt64 = 0
        var told: Set<String> = []
    }

    private let domain: DomainID
    private let limits: Limits
    private let shares: GrantShares
    private let tell: @Sendable (String) -> Void
    private let state = Mutex(State())

    /// An unused budget; a predecessor's share is returned.
    /// - Parameter tell: is told of the first refusal by each limit.
    public init(
        of domain: DomainID,
        _ limits: Limits,
        shares: GrantShares,
        tell: @escaping @Sendable (String) -> Void = { _ in }
    ) {
        self.domain = domain
        self.limits = limits
        self.shares = shares
        self.tell = tell
        shares.set(0, of: domain)
    }

    /// Pages mapped now.
    public var pages: Int { state.withLock { $0.pages } }
    /// Mappings there are now.
    public var mappings: Int { state.withLock { $0.mappings } }

    /// Takes the pages of one mapping.
    public func take(_ count: Int, for use: Use) throws(Refusal) {
        let refused = state.withLock { state -> (refusal: Refusal, isNew: Bool)? in
            guard let text = refusal(of: count, use, &state) else {
                state.pages += count
                state.mappings += 1
                return nil
            }
            return (Refusal(description: text), state.told.insert(text).inserted)
        }
        guard let refused else { return }
        if refused.isNew { tell(refused.refusal.description) }
        throw refused.refusal
    }

    /// Gives the pages of one mapping back.
    public func give(_ count: Int) {
        state.withLock { state in
            state.pages -= count
            state.mappings -= 1
            // With hysteresis, so that a page mapped and unmapped at a boundary costs nothing.
            let needed = GrantBudget.whole(state.pages)
            if state.reserved >= needed + 2 * GrantBudget.chunk {
                state.reserved = needed
                shares.set(needed, of: domain)
            }
        }
    }

    private func refusal(of count: Int, _ use: Use, _ state: inout State) -> String? {
        func room(_ limit: Int) -> Int { use == .ring ? limit : limit - Limits.reserve(of: limit) }
        if state.pages + count > room(limits.guestPages) {
            return "the guest's \(limits.guestPages) pages are in use (guest-pages in [grants])"
        }
        if state.mappings + 1 > room(limits.mappings) {
            return "the kernel lets the worker have \(limits.mappings) mappings (sysctl vm.max_map_count)"
        }
        let needed = state.pages + count
        guard needed > state.reserved else { return nil }
        if use == .data, MonotonicClock.nanoseconds < state.nextQuestion { return hostRefusal }
        for share in [GrantBudget.whole(needed), needed] {
            shares.set(share, of: domain)
            if shares.total <= room(limits.hostPages) {
                state.reserved = share
                return nil
            }
        }
        shares.set(state.reserved, of: domain)
        state.nextQuestion = MonotonicClock.nanoseconds &+ GrantBudget.rest
        return hostRefusal
    }

    private var hostRefusal: String {
        "the host's \(limits.hostPages) pages for all guests are in use (host-pages in [grants])"
    }

    private static func whole(_ pages: Int) -> Int { (pages + chunk - 1) / chunk * chunk }
}
