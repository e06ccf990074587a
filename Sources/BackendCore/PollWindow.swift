// How long a queue looks for the next request itself before it sleeps: the price of a wake-up is only paid for a pause.

/// A wake-up costs more than many requests do: an event's way through the hypervisor and the kernel, a switch of threads, two
/// or three system calls. A frontend that asks one thing after the other, each when it has its answer (pciif.h: one operation
/// at a time), pays it for every single one. So whoever has answered looks on for a moment, as KVM does before it blocks a
/// virtual processor (Linux, virt/kvm/kvm_main.c, `halt_poll_ns`). The port stays masked meanwhile: what is sent to it is
/// found when it is unmasked, so nothing is lost, and no event disturbs.
///
/// What that can cost is bounded in three ways. A window is at most a few times what the requests themselves take here, so a
/// frontend cannot make us work much longer than it could anyway. There is none after a pause: whoever asks once a second
/// is waited for asleep. And where nothing was found a few times in a row there is none for a while.
public struct PollWindow: Hashable, Sendable {
    /// Nanoseconds. A wake-up takes 10 to 50 µs on a machine of today; in one that is emulated, as everything else, more.
    private static let shortest: UInt64 = 50_000
    private static let longest: UInt64 = 2_000_000
    /// Windows in terms of what a request takes.
    private static let costFactor: UInt64 = 4
    /// A frontend counts as busy if it asked again within so many windows: the pause then contained our own waking up.
    private static let busyFactor: UInt64 = 4
    /// Windows in vain, and the requests after them that get none.
    private static let missLimit = 4
    private static let restLength = 64

    /// A moving mean of what a request takes, in nanoseconds.
    private var cost: UInt64 = 0
    private var isBusy = false
    private var misses = 0
    private var rest = 0

    public init() {}

    private var window: UInt64 { min(max(PollWindow.costFactor &* cost, PollWindow.shortest), PollWindow.longest) }

    /// The clock can be a system call, and then costs more than a request: a window is counted in looks, whose price some trials of
    /// so many in vain find out. The shortest counts: in the others somebody else had the processor.
    public static let trialLooks = 1024
    private static let trialCount = 4
    private var trials = 0
    private var trialTime = UInt64.max

    /// How many looks take so many nanoseconds; nil: try `trialLooks`, and tell how long they took.
    public func looks(in nanoseconds: UInt64) -> Int? {
        guard trials == PollWindow.trialCount else { return nil }
        return max(1, Int(clamping: nanoseconds &* UInt64(PollWindow.trialLooks) / trialTime))
    }

    /// All looks of a trial were in vain.
    public mutating func tried(_ nanoseconds: UInt64) {
        trials = min(trials + 1, PollWindow.trialCount)
        trialTime = min(trialTime, max(1, nanoseconds))
    }

    /// Nanoseconds to look on after an answer; 0: sleep at once.
    public var nanoseconds: UInt64 { isBusy && rest == 0 ? window : 0 }

    /// An event brought a request.
    /// - Parameter pause: nanoseconds since the last answer.
    public mutating func woke(after pause: UInt64) {
        isBusy = pause < PollWindow.busyFactor &* window
        rest = max(0, rest - 1)
    }

    /// A request was answered after so many nanoseconds.
    public mutating func answered(after time: UInt64) {
        // One that hung for seconds is no measure of the others.
        let time = min(time, PollWindow.longest)
        cost = cost == 0 ? time : cost &- cost / 8 &+ time / 8
    }

    /// The next request was there within the window.
    public mutating func found() { misses = 0 }

    /// It was not.
    public mutating func missed() {
        isBusy = false
        misses += 1
        guard misses == PollWindow.missLimit else { return }
        misses = 0
        rest = PollWindow.restLength
    }
}
