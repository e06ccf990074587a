// A bus without hardware: tests and demonstrations plug devices in and out and make them fail.

public import HostIO
public import HostUSB
internal import Synchronization

/// A host whose devices are Swift objects.
///
/// Everything happens on the loops of the devices' owners, with timers for what takes time. What it does not imitate: packets
/// on the wire and their retries, bandwidth (bulk takes no time; an interrupt endpoint answers when it has something),
/// hubs' transaction translators, the host's drivers and what they leave behind in a device, power, suspend, SuperSpeed
/// streams, BOS descriptors, remote wakeup. Isochronous endpoints are as punctual as the loop's timers.
public final class SimulatedUSB: USBHost {
    private struct Plugged {
        var facts: USBDeviceFacts
        let function: any SimulatedFunction
        let faults: SimulatedFaults
        var owner: String?
        var device: SimulatedUSBDevice?
    }
    private struct State {
        var plugged: [USBBusAddress: Plugged] = [:]
        var lastNumber: UInt8 = 0
        var watches: [SimulatedWatch] = []
    }
    private let state = Mutex(State())
    private let frame: Duration

    /// - Parameter frame: how long a frame takes, for hosts that are slower than the bus: all isochronous intervals are
    ///   stretched alike.
    public init(frame: Duration = .milliseconds(1)) { self.frame = frame }

    /// Plugs a device in.
    /// - Throws: `.busy` if there is one.
    public func plug(_ function: any SimulatedFunction, at address: USBBusAddress) throws(HostFailure) {
        let isFree = state.withLock { state in
            if state.plugged[address] != nil { return false }
            state.lastNumber = state.lastNumber % 127 + 1
            let facts = SimulatedUSB.facts(of: function, at: address, number: state.lastNumber)
            state.plugged[address] = Plugged(facts: facts, function: function, faults: SimulatedFaults())
            return true
        }
        if !isFree { throw HostFailure(.busy, "something is plugged in at \(address)") }
        tell()
    }

    /// Unplugs a device, whatever it is doing. Nothing happens if there is none.
    public func unplug(_ address: USBBusAddress) {
        let gone = state.withLock { $0.plugged.removeValue(forKey: address) }
        guard let gone else { return }
        if let device = gone.device { device.loop.perform { device.unplug() } }
        tell()
    }

    /// The faults of a device that is plugged in; nil if there is none.
    public func faults(at address: USBBusAddress) -> SimulatedFaults? {
        state.withLock { $0.plugged[address]?.faults }
    }

    /// Who has the device.
    public func owner(at address: USBBusAddress) -> String? { state.withLock { $0.plugged[address]?.owner } }

    /// What the end of its owner's process does to a device: whatever it was doing stops without a result, and it is
    /// free. Nothing happens if it has no owner. For tests of successors.
    public func endOwner(at address: USBBusAddress) async {
        let device = state.withLock { state in
            defer {
                state.plugged[address]?.owner = nil
                state.plugged[address]?.device = nil
            }
            return state.plugged[address]?.device
        }
        guard let device else { return }
        await withCheckedContinuation { continuation in
            device.loop.perform {
                device.fallSilent()
                continuation.resume()
            }
        }
    }

    public func devices() throws(HostFailure) -> [USBDeviceFacts] {
        state.withLock { state in state.plugged.values.map(\.facts).sorted { $0.address < $1.address } }
    }

    public func watch(on loop: EventLoop, _ changed: @escaping @Sendable () -> Void) throws(HostFailure) -> any USBWatch
    {
        let watch = SimulatedWatch(loop: loop, changed: changed)
        state.withLock { state in
            state.watches.removeAll { $0.isEnded }
            state.watches.append(watch)
        }
        return watch
    }

    public func open(_ facts: USBDeviceFacts, owner: String, on loop: EventLoop) throws(HostFailure)
        -> any OpenUSBDevice
    {
        let result = state.withLock { state -> Result<SimulatedUSBDevice, HostFailure> in
            guard let plugged = state.plugged[facts.address], plugged.facts.deviceNumber == facts.deviceNumber else {
                return .failure(HostFailure(.notFound, "\(facts.address) is not plugged in (any more)"))
            }
            if facts.isHub { return .failure(.hub(facts)) }
            if let other = plugged.owner {
                return .failure(HostFailure(.busy, "\(facts.address) belongs to \(other); detach it there first"))
            }
            let device = SimulatedUSBDevice(plugged.function, plugged.facts, plugged.faults, loop, frame) {
                [weak self] device in
                self?.release(device)
            } pulled: { [weak self] in
                self?.unplug(facts.address)
            }
            state.plugged[facts.address]?.owner = owner
            state.plugged[facts.address]?.device = device
            return .success(device)
        }
        return try result.get()
    }

    /// Nothing happens if it is another owner's by now.
    private func release(_ device: SimulatedUSBDevice) {
        state.withLock { state in
            let address = device.facts.address
            guard state.plugged[address]?.device === device else { return }
            state.plugged[address]?.owner = nil
            state.plugged[address]?.device = nil
        }
    }

    private func tell() {
        for watch in state.withLock({ $0.watches }) { watch.tell() }
    }

    private static func facts(
        of function: any SimulatedFunction,
        at address: USBBusAddress,
        number: UInt8
    ) -> USBDeviceFacts {
        let device = function.descriptors.device
        var facts = USBDeviceFacts(
            address: address,
            busNumber: address.bus,
            deviceNumber: number,
            vendor: UInt16(device[8]) | UInt16(device[9]) << 8,
            product: UInt16(device[10]) | UInt16(device[11]) << 8,
            deviceClass: device[4],
            speed: function.speed
        )
        facts.release = UInt16(device[12]) | UInt16(device[13]) << 8
        facts.manufacturerName = function.strings.manufacturer
        facts.productName = function.strings.product
        facts.serial = function.strings.serial
        facts.configurationCount = device[17]
        let classes = function.descriptors.configuration(1)?.settings.map(\.interfaceClass) ?? []
        facts.interfaceClasses = Set(classes).sorted()
        return facts
    }
}

/// A watch of a simulated host.
final class SimulatedWatch: USBWatch {
    private let loop: EventLoop
    private let changed: @Sendable () -> Void
    private let state = Mutex((isEnded: false, isPending: false))

    init(loop: EventLoop, changed: @escaping @Sendable () -> Void) {
        self.loop = loop
        self.changed = changed
    }

    var isEnded: Bool { state.withLock { $0.isEnded } }

    func end() { state.withLock { $0.isEnded = true } }

    /// At most one call is on its way.
    func tell() {
        let isFirst = state.withLock { state in
            defer { state.isPending = true }
            return !state.isPending && !state.isEnded
        }
        if !isFirst { return }
        loop.perform {
            let isOn = self.state.withLock { state in
                state.isPending = false
                return !state.isEnded
            }
            if isOn { self.changed() }
        }
    }
}
