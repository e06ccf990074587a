// A device that takes and gives everything at once: what is left of an URB's time is the way to it and back.

internal import HostUSB
internal import SimulatedHost

/// Two bulk endpoints and a vendor request, none of which looks at the data.
final class USBSink: SimulatedFunction {
    static let input: UInt8 = 0x81
    static let output: UInt8 = 0x02

    let strings = SimulatedStrings(product: "Sink and source")
    let speed = USBSpeed.high
    let descriptors = USBDescriptors(
        device: [18, 1, 0, 2, 0xFF, 0, 0, 64, 0x25, 0x05, 0xA0, 0xA4, 0, 1, 1, 2, 0, 1],
        configurations: [
            [9, 2, 32, 0, 1, 1, 0, 0x80, 50]
                + [9, 4, 0, 0, 2, 0xFF, 0, 0, 0]
                + [7, 5, USBSink.input, 2, 0, 2, 0]
                + [7, 5, USBSink.output, 2, 0, 2, 0]
        ]
    )

    func control(_ setup: USBSetup, _ data: SimulatedBytes) -> SimulatedAnswer { .moved(data.count) }
    func transfer(endpoint: UInt8, _ data: SimulatedBytes) -> SimulatedAnswer { .moved(data.count) }
}
