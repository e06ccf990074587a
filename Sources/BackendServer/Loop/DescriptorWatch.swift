// A descriptor on the control loop: one closure, called when there is something to read.

internal import HostIO

/// Calls `onReadable` on the loop whenever the descriptor becomes readable, until cancelled. Made and cancelled on the
/// loop. The descriptor must stay open until then.
final class DescriptorWatch: CompletionTarget, @unchecked Sendable {
    // Loop-confined: `begin` and `cancel` are called on the loop, completions come there.
    private let loop: EventLoop
    private let descriptor: CInt
    private let onReadable: @Sendable () -> Void
    private var target: TargetID?

    init(_ descriptor: CInt, on loop: EventLoop, onReadable: @escaping @Sendable () -> Void) {
        self.descriptor = descriptor
        self.loop = loop
        self.onReadable = onReadable
    }

    func begin() {
        precondition(loop.isOnLoop && target == nil)
        let id = loop.attach(self)
        target = id
        loop.watchReadable(descriptor, target: id, slot: 0)
    }

    func cancel() {
        precondition(loop.isOnLoop)
        guard let id = target else { return }
        target = nil
        loop.unwatch(descriptor, target: id, slot: 0)
        loop.detach(id)
    }

    func completed(_ completions: borrowing CompletionBatch) {
        if target != nil { onReadable() }
    }
}
