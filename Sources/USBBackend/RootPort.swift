// One port of the virtual root hub: which device is to be in it, which is, and what the guest made of it.

internal import BackendCore
internal import HostIO
internal import HostUSB
internal import XenWire

/// The state of one port. Belongs to its queue's loop, where everything happens to it.
final class RootPort {
    /// Resets of a device in a row, and then one each interval: a guest may reset without end, its device is reset as
    /// often as one in trouble needs it.
    private static let resetBurst: UInt32 = 8
    private static let resetInterval = Duration.seconds(1)

    let port: USBPort
    // What the toolstack assigned.
    /// As the toolstack wrote it.
    private(set) var assignment = ""
    private(set) var rule: USBDeviceRule?
    /// Why there is no device, for people; nil while it is only awaited.
    var refusal: String?
    /// Devices that cannot be in this port, so that they are not taken again and again.
    var unfit: Set<UInt64> = []
    /// A device is being looked for, and once more afterwards if something changed meanwhile.
    var isSeeking = false
    var seeksAgain = false
    /// The wait before a device that somebody else had is asked for again.
    var pause = RootPort.firstPause
    static let firstPause = Duration.milliseconds(20)
    /// A device on its way back to the host.
    var isLeaving = false

    // What is there.
    private(set) var device: (any OpenUSBDevice)?
    private(set) var capabilities: USBCapabilities?
    var address: UInt8 = 0
    /// The device was given an address since it was last reset.
    var isUsed = false
    private(set) var configuration: UInt8 = 0
    private(set) var alternates = [UInt8](repeating: 0, count: USBPortMemory.interfaces)
    private(set) var endpoints = USBEndpointTable()
    /// What is to be done with the device before any URB gets to it; the first is under way.
    var operations: [USBOperation] = []
    var resets = RateLimiter(burst: resetBurst, interval: resetInterval)
    /// What a predecessor's frontend knows, while its device is awaited.
    var memory: USBPortMemory?

    // What is under way.
    /// Endpoints with a transfer in flight that holds the endpoint's queue (`URBRequest.holdsQueue`).
    var barred: UInt32 = 0
    /// Endpoints whose queues are halted until the frontend has seen a response.
    private(set) var halted: UInt32 = 0
    private var haltedBy = [(response: UInt32, since: UInt64)](repeating: (0, 0), count: 32)
    var remainders = PacketRemainders()
    /// The frame of the next packet of each endpoint, and how many transfers lead up to it.
    var frames = [UInt16](repeating: 0, count: 32)
    var framesInFlight = [UInt8](repeating: 0, count: 32)

    init(_ port: USBPort) { self.port = port }

    /// A device is on its way to us or from us.
    var isBusy: Bool { isSeeking || isLeaving }

    /// URBs wait: for a device that is to come back, or for what is done with it.
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

    /// Takes what the toolstack wrote.
    /// - Returns: false if the device that is there is not the one.
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

    /// A device is ours.
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

    /// The device is not ours any more.
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

    /// A new frontend, or none: the device is as the last one left it, and it will have to be reset.
    func disconnect() {
        address = 0
        memory = nil
        halted = 0
        forgetTransfers()
    }

    // MARK: halted queues

    /// How long to wait for a frontend that does not say what it has seen. Nanoseconds.
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
        // A device that is awaited is remembered as it was.
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

    /// The device that a predecessor had is back: the guest's address holds, and what the death of the predecessor undid
    /// (usbfs sets alternate settings to 0 when it closes) is done again. It counts as done, as URBs wait for it: whenever this
    /// life ends, the next one has to do it as well.
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

    /// nil: nothing is assigned and nothing is there.
    var report: PortReport? {
        if let device, let capabilities {
            let text = "\(device.facts), \(capabilities)" + (address == 0 ? "" : ", address \(address)")
            return PortReport(Int(port.number), .device(bus: "\(device.facts.address)", description: text))
        }
        if let refusal { return PortReport(Int(port.number), .failed(refusal)) }
        return assignment.isEmpty ? nil : PortReport(Int(port.number), .waiting(for: assignment))
    }
}
