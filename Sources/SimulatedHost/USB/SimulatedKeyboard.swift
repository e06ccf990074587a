// A keyboard whose keys a test presses.

public import HostUSB
internal import Synchronization

/// A low-speed boot keyboard (HID 1.11, appendix B.1) with one interrupt endpoint.
public final class SimulatedKeyboard: SimulatedFunction {
    static let input: UInt8 = 0x81

    public let strings = SimulatedStrings(product: "Simulated keyboard")
    public let speed = USBSpeed.low
    public let descriptors: USBDescriptors

    private struct State {
        var reports: [[UInt8]] = []
        var lights: UInt8 = 0
        var wake: (@Sendable () -> Void)?
    }
    private let state = Mutex(State())

    public init(vendor: UInt16 = 0x046d, product: UInt16 = 0xc31c) {
        let report = SimulatedKeyboard.reportDescriptor
        let body =
            SimulatedDescriptors.interface(0, endpoints: 1, (0x03, 0x01, 0x01))
            + [9, USBDescriptorType.hid, 0x11, 0x01, 0, 1, USBDescriptorType.hidReport, UInt8(report.count), 0]
            + SimulatedDescriptors.endpoint(SimulatedKeyboard.input, attributes: 3, packetSize: 8, interval: 10)
        descriptors = USBDescriptors(
            device: SimulatedDescriptors.device(.low, vendor: vendor, product: product, hasSerial: false),
            configurations: [SimulatedDescriptors.configuration(interfaces: 1, body)]
        )
    }

    /// Presses and releases a key. At most 64 reports are queued.
    /// - Parameters:
    ///   - usage: of the keyboard page (HID Usage Tables, 10): 0x04 is A.
    ///   - modifiers: bit 0 is left Control, bit 1 left Shift.
    public func press(_ usage: UInt8, modifiers: UInt8 = 0) {
        let wake = state.withLock { state in
            if state.reports.count <= 62 {
                state.reports.append([modifiers, 0, usage, 0, 0, 0, 0, 0])
                state.reports.append([UInt8](repeating: 0, count: 8))
            }
            return state.wake
        }
        wake?()
    }

    /// The lights that the host has switched on: bit 0 is Num Lock.
    public var lights: UInt8 { state.withLock { $0.lights } }

    public func control(_ setup: USBSetup, _ data: SimulatedBytes) -> SimulatedAnswer {
        switch (setup.requestType, setup.request) {
        case (0x81, 6) where setup.value >> 8 == UInt16(USBDescriptorType.hidReport):
            return data.fill(SimulatedKeyboard.reportDescriptor)
        case (0x81, 6) where setup.value >> 8 == UInt16(USBDescriptorType.hid):
            return data.fill(Array(descriptors.configurations[0][18..<27]))
        case (0xa1, 1): return data.fill([UInt8](repeating: 0, count: 8))
        case (0x21, 9) where data.count == 1:
            state.withLock { $0.lights = data.byte(0) }
            return .moved(1)
        case (0x21, 10), (0x21, 11): return .moved(0)  // SET_IDLE, SET_PROTOCOL
        default: return .stall
        }
    }

    public func transfer(endpoint: UInt8, _ data: SimulatedBytes) -> SimulatedAnswer {
        let report = state.withLock { $0.reports.isEmpty ? nil : $0.reports.removeFirst() }
        return report.map(data.fill) ?? .wait
    }

    public func restart(endpoint: UInt8?) {
        if endpoint == nil { state.withLock { $0.reports = [] } }
    }

    public func setWake(_ wake: (@Sendable () -> Void)?) { state.withLock { $0.wake = wake } }

    /// Eight modifiers, a constant byte, five lights, six keys (HID 1.11, appendix E.6).
    private static let reportDescriptor: [UInt8] = [
        0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, 0x05, 0x07, 0x19, 0xe0, 0x29, 0xe7, 0x15, 0x00, 0x25, 0x01, 0x75, 0x01,
        0x95, 0x08, 0x81, 0x02, 0x95, 0x01, 0x75, 0x08, 0x81, 0x01, 0x95, 0x05, 0x75, 0x01, 0x05, 0x08, 0x19, 0x01,
        0x29, 0x05, 0x91, 0x02, 0x95, 0x01, 0x75, 0x03, 0x91, 0x01, 0x95, 0x06, 0x75, 0x08, 0x15, 0x00, 0x25, 0x65,
        0x05, 0x07, 0x19, 0x00, 0x29, 0x65, 0x81, 0x00, 0xc0,
    ]
}
