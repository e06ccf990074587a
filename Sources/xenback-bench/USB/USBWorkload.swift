// What is measured of USB, and what came of one load.

internal import XenWire

/// One kind of URB, always as many of them under way.
struct USBWorkload: Sendable {
    enum Kind: Sendable { case control, bulkIn, bulkOut }

    let name: String
    let kind: Kind
    /// Of an URB's buffer; at most 64 KiB.
    let bytes: Int
    /// The ring has 16 slots.
    let depth: Int

    static let all = [
        USBWorkload(name: "bulk in 64k depth 8", kind: .bulkIn, bytes: 65536, depth: 8),
        USBWorkload(name: "bulk out 64k depth 8", kind: .bulkOut, bytes: 65536, depth: 8),
        USBWorkload(name: "bulk in 512 depth 16", kind: .bulkIn, bytes: 512, depth: 16),
        USBWorkload(name: "bulk out 512 depth 16", kind: .bulkOut, bytes: 512, depth: 16),
        USBWorkload(name: "bulk in 512 depth 1", kind: .bulkIn, bytes: 512, depth: 1),
        USBWorkload(name: "control in 8 depth 1", kind: .control, bytes: 8, depth: 1),
    ]

    /// Pages of a buffer.
    var pages: Int { (bytes + 4095) / 4096 }

    func pipe(_ port: USBPort, device: UInt8) -> USBPipe {
        switch kind {
        case .control: USBPipe(port, .control, device: device, .in)
        case .bulkIn: USBPipe(port, .bulk, device: device, endpoint: USBSink.input & 15, .in)
        case .bulkOut: USBPipe(port, .bulk, device: device, endpoint: USBSink.output, .out)
        }
    }

    var specifics: RawURBSpecifics {
        switch kind {
        // A request of the vendor's own.
        case .control: .control(SetupPacket(0xC0, 1, length: UInt16(bytes)))
        case .bulkIn, .bulkOut: .bulk
        }
    }
}
