// A queue's port to the host: watched, seen to go on, replaced by system calls where it breaks.

internal import BackendCore
internal import HostIO
internal import HostNetwork

extension NetQueue {
    func watchPort() {
        guard let target, let port else { return }
        let loop = facts.data.loop
        loop.watchReadable(port.receiveDescriptor, target: target, slot: Slot.readable)
        if let room = port.roomDescriptor { loop.watchReadable(room, target: target, slot: Slot.room) }
        if let error = port.errorDescriptor { loop.watchReadable(error, target: target, slot: Slot.hostError) }
    }

    func unwatchPort() {
        guard let target, let port else { return }
        let loop = facts.data.loop
        loop.unwatch(port.receiveDescriptor, target: target, slot: Slot.readable)
        if let room = port.roomDescriptor { loop.unwatch(room, target: target, slot: Slot.room) }
        if let error = port.errorDescriptor { loop.unwatch(error, target: target, slot: Slot.hostError) }
    }

    /// Goes on by system calls: what the kernel's thread had is lost.
    func fallBack(_ failure: HostFailure) {
        guard isTaking, let port, let device else { return }
        if interfaceIsGone() { return }
        unwatchPort()
        port.close()
        do throws(BackendFailure) {
            let plain = try plainPort(device)
            self.port = plain
            transmit?.go(through: plain)
            receive?.go(through: plain)
        } catch {
            return broken(.host(error.text))
        }
        transmit?.log.failure("queue \(facts.index) goes on by system calls: \(failure)")
        watch.isOver()
        watchPort()
        transmitTurn()
        receiveTurn()
    }

    /// The kernel found something wrong with a ring, or with the interface.
    func hostFailed() {
        guard isTaking, let port, port.takeError() else { return }
        fallBack(HostFailure(.host, "the kernel reports an error in its part of vhost-net"))
    }

    func interfaceIsGone() -> Bool {
        guard let status = port?.look(), PacketBatch.meansGone(-status) else { return false }
        facts.refused(-status)
        return true
    }

    /// Sees to it that somebody looks whether the host takes packets, for as long as it has some.
    func watchProgress() {
        guard let port, let target, let wait = watch.look(port.progress) else { return }
        facts.data.loop.after(wait, target: target, slot: Slot.progress)
    }

    func progressIsDue() {
        guard isTaking else { return }
        watch.isDue()
        // Takes back what the host has finished, and looks again.
        transmitTurn()
        if watch.takeNews(), !interfaceIsGone() {
            transmit?.log.failure("queue \(facts.index): the host has taken no packet for \(watch.patience)")
        }
    }
}
