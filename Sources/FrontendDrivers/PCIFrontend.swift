// pcifront in Swift: one page, one operation at a time, buses that are scanned, cards that come and go.

public import HostIO
public import Hypervisor
internal import SharedRing
public import XenWire

/// A card as a frontend finds it on its buses.
public struct PCIGuestFunction: Hashable, Sendable {
    public let address: PCIAddress
    public let vendor: UInt16
    public let product: UInt16
    /// 24 bits.
    public let classCode: UInt32

    public init(address: PCIAddress, vendor: UInt16, product: UInt16, classCode: UInt32) {
        self.address = address
        self.vendor = vendor
        self.product = product
        self.classCode = classCode
    }
}

/// A PCI frontend on one loop. It behaves as Linux's xen-pcifront does on the wire and in XenStore.
public actor PCIFrontend: PVFrontend {
    public nonisolated let loop: EventLoop
    public nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe loop.asUnownedSerialExecutor() }
    public nonisolated let bus: FrontendBus
    public nonisolated let hypervisor: any Hypervisor
    public var link = FrontendLink()
    public private(set) var isConnected = false
    /// What was found at the last scan, by address.
    public private(set) var functions: [PCIGuestFunction] = []
    /// Errors that the backend told of, in order.
    public private(set) var errors: [(command: PCICommand, address: PCIAddress)] = []
    /// What a driver says to an error.
    public var recovery = PCIRecovery.recovered
    private var page: PCIFrontPage?
    private var port: EventChannelPort?
    /// Whose operation it is; the others wait in their order.
    private var isOperating = false
    private var queue: [CheckedContinuation<Void, Never>] = []
    private var answered: CheckedContinuation<Void, Never>?

    /// - Parameter hypervisor: as seen from the guest.
    public init(_ hypervisor: any Hypervisor, loop: EventLoop, index: UInt32 = 0) {
        self.hypervisor = hypervisor
        self.loop = loop
        bus = FrontendBus(store: hypervisor.store, path: "device/pci/\(index)")
    }

    // MARK: connecting

    /// pcifront publishes at once, whatever the backend's state is.
    public static var openStates: [XenbusState] { [.initialising, .initWait, .initialised, .connected] }

    /// Our 3 with the page, the backend's 4, the scan, our 4.
    public func establish(with backend: DomainID, within limit: Duration) async throws(FrontendFailure) {
        let events = try openEvents()
        let port = try FrontendDrivers.hypervisor { () throws(HypervisorFailure) in try events.allocate(for: backend) }
        let page = try PCIFrontPage(hypervisor, backend)
        (self.port, self.page) = (port, page)
        try await bus.publish([
            (PCIKeys.pageReference, "\(page.reference.rawValue)"),
            (BusKeys.eventChannel, "\(port.rawValue)"),
            (PCIKeys.magic, PCIWire.magic),
            (BusKeys.state, XenbusState.initialised.text),
        ])
        try await awaitConnected(within: limit)
        isConnected = true
        try await scan()
        try await bus.publish(.connected)
    }

    /// Looks for cards on all buses that the backend names, function by function.
    public func scan() async throws(FrontendFailure) {
        let count = try await bus.read([PCIKeys.rootCount], of: link.backendPath)[PCIKeys.rootCount]
        guard let count = count.flatMap({ UInt8(decimal: $0) }) else {
            throw .badKey(PCIKeys.rootCount, value: count)
        }
        var found: [PCIGuestFunction] = []
        for index in 0..<Int(count) {
            let key = PCIKeys.root(index)
            let text = try await bus.read([key], of: link.backendPath)[key]
            guard let text, let root = try? PCIRoot(key: text) else { throw .badKey(key, value: text) }
            for number in UInt8.min...UInt8.max {
                let address = PCIAddress(segment: root.segment, bus: root.bus, deviceFunction: number)
                if let function = try await look(at: address) { found.append(function) }
            }
        }
        functions = found
    }

    private func look(at address: PCIAddress) async throws(FrontendFailure) -> PCIGuestFunction? {
        do throws(FrontendFailure) {
            let identity = try await read(address, 0, 4)
            guard identity != 0, identity != .max else { return nil }
            let classCode = try await read(address, 8, 4) >> 8
            return PCIGuestFunction(
                address: address,
                vendor: UInt16(truncatingIfNeeded: identity),
                product: UInt16(truncatingIfNeeded: identity >> 16),
                classCode: classCode
            )
        } catch {
            guard case .pci(.deviceNotFound) = error else { throw error }
            return nil
        }
    }

    // MARK: operations

    /// Reads `size` bytes of a card's configuration space.
    public func read(_ address: PCIAddress, _ offset: Int32, _ size: Int32) async throws(FrontendFailure) -> UInt32 {
        try await operate(PCIFrontOperation(.read, address, offset: offset, size: size)).value
    }

    public func write(
        _ value: UInt32,
        to address: PCIAddress,
        _ offset: Int32,
        _ size: Int32
    ) async throws(FrontendFailure) {
        _ = try await operate(PCIFrontOperation(.write, address, offset: offset, size: size, value: value))
    }

    /// - Returns: the interrupt to bind.
    public func enableMSI(_ address: PCIAddress) async throws(FrontendFailure) -> UInt32 {
        try await operate(PCIFrontOperation(.enableMSI, address)).value
    }

    public func disableMSI(_ address: PCIAddress) async throws(FrontendFailure) {
        _ = try await operate(PCIFrontOperation(.disableMSI, address))
    }

    /// - Returns: an interrupt for each row.
    public func enableMSIX(_ address: PCIAddress, _ entries: [UInt16]) async throws(FrontendFailure) -> [PCIVector] {
        let operation = PCIFrontOperation(.enableMSIX, address, value: UInt32(entries.count), entries: entries)
        return try await operate(operation).vectors
    }

    public func disableMSIX(_ address: PCIAddress) async throws(FrontendFailure) {
        _ = try await operate(PCIFrontOperation(.disableMSIX, address))
    }

    /// Puts an operation into the page, whatever it is, and waits for its answer, however long that takes.
    /// - Throws: `pci` if it is answered with an error, `closed` if the page goes away first.
    public func operate(_ operation: PCIFrontOperation) async throws(FrontendFailure) -> PCIAnswer {
        // The bodies look again: other jobs of this actor, and events, may come before them.
        while isOperating {
            await withCheckedContinuation { next in if isOperating { queue.append(next) } else { next.resume() } }
        }
        isOperating = true
        defer {
            isOperating = false
            if !queue.isEmpty { queue.removeFirst().resume() }
        }
        guard let page, let port else { throw .closed }
        page.put(operation)
        link.events?.notify(port)
        while page.isActive {
            await withCheckedContinuation { waiting in
                if page.isActive, self.page === page { answered = waiting } else { waiting.resume() }
            }
            guard self.page === page else { throw .closed }
        }
        let answer = page.answer(to: operation)
        guard answer.error == .success else { throw .pci(answer.error) }
        return answer
    }

    /// The page, and a way to ring, for whoever does not behave.
    public var rawPage: PCIFrontPage? { page }
    public func ring() { if let port { link.events?.notify(port) } }

    // MARK: events

    public func eventArrived(on port: EventChannelPort) throws(FrontendFailure) {
        if let page, !page.isActive { wake() }
        if let page, let (command, address) = page.takeError() {
            errors.append((command, address))
            page.answerError(recovery)
            link.events?.notify(port)
        }
    }

    private func wake() {
        answered?.resume()
        answered = nil
    }

    public func setRecovery(_ recovery: PCIRecovery) { self.recovery = recovery }

    /// 7: what is to go is let go of, then our 7; 8: what has come is looked for, then our 4.
    public func backendReconfigures(_ state: XenbusState) async {
        guard let text = try? await bus.read([BusKeys.state], of: bus.path)[BusKeys.state] else { return }
        switch (state, XenbusState(text: text)) {
        case (.reconfiguring, .connected):
            let gone = await goingAway()
            functions.removeAll { gone.contains($0.address) }
            try? await bus.publish(.reconfiguring)
        case (.reconfigured, .reconfiguring):
            try? await scan()
            try? await bus.publish(.connected)
        default: break
        }
    }

    private func goingAway() async -> [PCIAddress] {
        let path = link.backendPath
        guard let count = try? await bus.read([PCIKeys.count], of: path)[PCIKeys.count].flatMap({ Int($0) }) else {
            return []
        }
        var gone: [PCIAddress] = []
        for index in 0..<count {
            let (state, place) = (PCIKeys.state(index), PCIKeys.virtualDevice(index))
            guard let keys = try? await bus.read([state, place], of: path), keys[state] == XenbusState.closing.text,
                let address = keys[place].flatMap({ try? PCIAddress(key: $0) })
            else { continue }
            gone.append(address)
        }
        return gone
    }

    public func releaseRings() {
        isConnected = false
        page = nil
        port = nil
        functions = []
        wake()
    }
}
