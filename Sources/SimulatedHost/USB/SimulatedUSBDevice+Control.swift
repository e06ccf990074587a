// Endpoint 0 of a simulated device: the requests that all devices know (USB 2.0, 9.4).

internal import HostUSB
internal import SharedRing

extension SimulatedUSBDevice {
    /// The setup packet at the beginning of a control transfer's range.
    func setup(of transfer: USBTransfer) -> USBSetup {
        guard let plan else { return USBSetup(requestType: 0, request: 0) }
        return USBSetup(plan.pages.slot(at: transfer.offset, byteCount: USBSetup.byteCount))
    }

    /// Nil for a request that the host must never send itself.
    func controlAnswer(_ transfer: USBTransfer, _ pages: PrivatePages) -> SimulatedAnswer? {
        let setup = setup(of: transfer)
        guard !setup.isForHost, Int(setup.length) <= transfer.byteCount - USBSetup.byteCount else { return nil }
        let data = SimulatedBytes(pages: pages, offset: transfer.offset + 8, count: Int(setup.length))
        if setup.requestType & 0x60 != 0 { return function.control(setup, data) }
        switch (setup.requestType & 0x1f, setup.request) {
        case (0, 0): return data.fill([0, 0])
        case (0, 1), (0, 3): return .moved(0)
        case (0, 6): return descriptor(setup, data)
        case (0, 8): return data.fill([activeConfiguration ?? 0])
        case (1, 0): return data.fill([0, 0])
        case (1, 10): return data.fill([alternates[UInt8(truncatingIfNeeded: setup.index)] ?? 0])
        case (2, 0): return data.fill([isHalted(setup.index) ? 1 : 0, 0])
        case (2, 3): return halt(setup.index) ? .moved(0) : .stall
        default: return function.control(setup, data)
        }
    }

    private func isHalted(_ endpoint: UInt16) -> Bool {
        endpoints[Int(endpoint & 15) + (endpoint & 0x80 != 0 ? 16 : 0)].isHalted
    }

    private func halt(_ endpoint: UInt16) -> Bool {
        let index = Int(endpoint & 15) + (endpoint & 0x80 != 0 ? 16 : 0)
        if index & 15 == 0 || endpoints[index].kind == nil { return false }
        endpoints[index].isHalted = true
        return true
    }

    private func descriptor(_ setup: USBSetup, _ data: SimulatedBytes) -> SimulatedAnswer {
        let index = Int(setup.value & 0xff)
        switch UInt8(setup.value >> 8) {
        case USBDescriptorType.device: return data.fill(descriptors.device)
        case USBDescriptorType.configuration where index < descriptors.configurations.count:
            return data.fill(descriptors.configurations[index])
        case USBDescriptorType.string: return string(index).map(data.fill) ?? .stall
        default: return .stall
        }
    }

    private func string(_ index: Int) -> [UInt8]? {
        switch index {
        case 0: [4, USBDescriptorType.string, 0x09, 0x04]
        case 1: SimulatedDescriptors.string(function.strings.manufacturer)
        case 2: SimulatedDescriptors.string(function.strings.product)
        case 3: function.strings.serial.map(SimulatedDescriptors.string)
        default: nil
        }
    }

    /// Unplugs the device from within.
    func pull() {
        unplug()
        pulled()
    }
}
