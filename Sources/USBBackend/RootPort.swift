// One port of the virtual root hub: the device assigned to it, the device in it, and the state the guest put that in.

internal import BackendCore
internal import HostIO
internal import HostUSB
internal import XenWire

/// The state of one port. Belongs to its queue's loop, where everything happens to it.
final class RootPort {
    /// Resets of a device in a row, and then one per interval: a guest may ask for resets without end, but its device
    /// is reset only as often as a device in trouble would be.
    private static let resetBurst: UInt32 = 8
    private static let resetInterval = Duration.seconds(1)

    let port: USBPort
    // What the toolstack assigned.
    /// As the toolstack wrote it.
    private(set) var assignment = ""
    private(set) var rule: USBDeviceRule?
    /// Why there is no device, for people; nil while one is merely awaited.
    var refusal: String?
    /// Devices that this port cannot carry, so that they are not opened again and again.
    var unfit: Set<UInt64> = []
    /// A device is being looked for; and whether to look once more afterwards because something changed meanwhile.
    var isSeeking = false
    var seeksAgain = false
    /// The wait before a device that was in use elsewhere is tried again.
    var pause = RootPort.firstPause
    static let firstPause = Duration.milliseconds(20)
    /// A device is being returned to the host.
    var isLeaving = false

    // What is there.
    private(set) var device: (any OpenUSBDevice)?
    private(set) var capabilities: USBCapabilities?
    var address: UInt8 = 0
    /// The device was given an address after its last reset.
    var isUsed = false
    private(set) var configuration: UInt8 = 0
    private(set) var alternates = [UInt8](repeating: 0, count: USBPortMemory.interfaces)
    private(set) var endpoints = USBEndpointTable()
    /// Operations on the device that every URB to it waits for; the first is in progress.
    var operations: [USBOperation] = []
    var resets = RateLimiter(burst: resetBurst, interval: resetInterval)
    /// What the frontend learnt from a predecessor, while that device is awaited.
    var memory: USBPortMemory?

    // What is in progress.
    /// Endpoints with a transfer in flight that holds up the endpoint's queue (`URBRequest.holdsQueue`).
    var barred: UInt32 = 0
    /// Endpoints whose queues are halted until the frontend has seen a response.
    private(set) var halted: UInt32 = 0
    private var haltedBy = [(response: UInt32, since: UInt64)](repeating: (0, 0), count: 32)
    var remainders = PacketRemainders()
    /// The frame of each endpoint's next packet, and how many transfers are queued before it.
    var frames = [UInt16](repeating: 0, count: 32)
    var framesInFlight = [UInt8](repeating: 0, count: 32)

    init(_ port: USBPort) { self.port = port }

    /// A device is being acquired or returned.
    var isBusy: Bool { isSeeking || isLeaving }

    /// URBs have to wait: for a device to come back, or for an operation on it.
    var isHeld: Bool { memory != nil || !operations.isEmpty }

    /// A bit for each endpoint and direction.
    static func bit(_ endpoint: USBEndpointAddress) -> UInt32 { 1 << UInt32(index(endpoint)) }
    /// The same for the queue of a pipe: a control endpoint has one for both directions.
    static func queue(of pipe: USBPipe) -> UInt32 {
        bit(pipe.type == .control ? USBEndpointAddress(pipe.endpoint, .out) : pipe.address)
    }
    /// All but endpoint 0's.
    static let dataQueues: UInt32 = 0xFFFE_FFFE
    /// 0 … 31
    static func index(_ endpoint: USBEndpointAddress) -> Int {
        Int(endpoint.number) &+ (endpoint.direction == .in ? 16 : 0)
    }

    // MARK: assignments

    /// Accepts what the toolstack wrote.
    /// - Returns: false if the device in the port is not the assigned one.
    func assign(_ assignment: String) -> Bool {
        self.assignment = assignment
        refusal = nil
        unfit = []
        rule = nil
        pause = RootPort.firstPause
        if !assignment.isEmpty {
            do throws(HostFailure) {
                rule = try USBDeviceRule(assignment)
            } catch {
                refusal = error.text
            }
        }
        guard let device else { return true }
        return rule?.matches(device.facts) ?? false
    }

    // MARK: the device

    /// A device was acquired.
    func take(_ device: any OpenUSBDevice, _ capabilities: USBCapabilities) {
        self.device = device
        self.capabilities = capabilities
        refusal = nil
        pause = RootPort.firstPause
        address = 0
        isUsed = false
        operations = []
        configure(device.activeConfiguration ?? 0)
        forgetTransfers()
    }

    /// The device is no longer ours.
    func lose() {
        halted = 0
        device = nil
        capabilities = nil
        address = 0
        isUsed = false
        operations = []
        endpoints = USBEndpointTable()
        forgetTransfers()
    }

    /// A new frontend, or none: the device is still as the last frontend left it, and will have to be reset.
    func disconnect() {
        address = 0
        memory = nil
        halted = 0
        forgetTransfers()
    }

    // MARK: halted queues

    /// How long to wait for a frontend that does not update `rsp_event`. Nanoseconds.
    private static let haltTime: UInt64 = 1_000_000_000

    /// Halts the queues of these endpoints until the frontend has seen the response of that index.
    func halt(_ queues: UInt32, by response: UInt32, now: UInt64) {
        halted |= queues
        for index in haltedBy.indices where queues & 1 << UInt32(index) != 0 { haltedBy[index] = (response, now) }
    }

    /// Resumes the queues whose response the frontend has seen.
    /// - Parameter responseEvent: `rsp_event`.
    /// - Returns: whether there are any.
    func resumeQueues(_ responseEvent: UInt32, now: UInt64) -> Bool {
        let before = halted
        for index in haltedBy.indices where halted & 1 << UInt32(index) != 0 {
            let (response, since) = haltedBy[index]
            let isSeen = Int32(bitPattern: responseEvent &- response) >= 2
            if isSeen || now &- since > RootPort.haltTime { halted &= ~(1 << UInt32(index)) }
        }
        return halted != before
    }

    private func forgetTransfers() {
        barred = 0
        remainders = PacketRemainders()
        for index in frames.indices { framesInFlight[index] = 0 }
    }

    /// The configuration was set.
    func configure(_ value: UInt8) {
        configuration = value
        for index in alternates.indices { alternates[index] = 0 }
        tabulate()
    }

    /// An alternate setting was set.
    func set(_ interface: UInt8, alternate: UInt8) {
        if Int(interface) < alternates.count { alternates[Int(interface)] = alternate }
        tabulate()
    }

    private func tabulate() {
        endpoints = capabilities?.endpoints(configuration, alternates) ?? USBEndpointTable()
    }

    // MARK: memory

    /// For a successor.
    func remembered(told: USBIFSpeed) -> USBPortMemory {
        // A device that is still awaited is remembered as it was.
        if let memory { return memory }
        var memory = USBPortMemory()
        memory.told = told
        guard let device else { return memory }
        memory.address = address
        memory.isUsed = isUsed
        memory.configuration = configuration
        memory.alternates = alternates
        memory.remainders = remainders.mask
        memory.identity = USBPortMemory.identity(of: device.facts)
        return memory
    }

    /// The device that a predecessor had is back: the guest's address for it is still valid, and what the predecessor's
    /// death undid (usbfs sets alternate settings to 0 on close) is redone. It is recorded as done already, since URBs
    /// wait for it; if this worker dies first, its successor redoes it as well.
    /// - Returns: whether there is anything to do.
    func restore(_ memory: USBPortMemory) -> Bool {
        address = memory.address
        isUsed = memory.isUsed
        remainders.lost = memory.remainders
        if memory.configuration != configuration { operations.append(.setConfiguration(memory.configuration)) }
        for (interface, alternate) in memory.alternates.enumerated() where alternate != 0 {
            operations.append(.setInterface(UInt8(truncatingIfNeeded: interface), alternate: alternate))
        }
        configuration = memory.configuration
        alternates = memory.alternates
        tabulate()
        return !operations.isEmpty
    }

    // MARK: for reports

    /// nil if nothing is assigned and there is no device.
    var report: PortReport? {
        if let device, let capabilities {
            let text = "\(device.facts), \(capabilities)" + (address == 0 ? "" : ", address \(address)")
            return PortReport(Int(port.number), .device(bus: "\(device.facts.address)", description: text))
        }
        if let refusal { return PortReport(Int(port.number), .failed(refusal)) }
        return assignment.isEmpty ? nil : PortReport(Int(port.number), .waiting(for: assignment))
    }
}
