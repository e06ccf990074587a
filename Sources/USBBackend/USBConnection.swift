// What frontend and backend agreed on: two rings and a port. Every number of the frontend is checked here, once.

internal import BackendCore
internal import XenWire

/// The negotiated facts of one connection; immutable.
struct USBConnection: NegotiatedConnection, Hashable {
    let urbRing: GrantReference
    let connectionRing: GrantReference
    /// The frontend's port; both rings share it.
    let port: EventChannelPort
    /// As the frontend named it; x86-32 and x86-64 have the same slots, so it changes nothing.
    let abi: String?

    static let firstKeys = [
        USBKeys.urbRingReference, USBKeys.connectionRingReference, BusKeys.eventChannel, USBKeys.protocol,
    ]
    /// ABIs whose slots are laid out as usbif.h draws them (public/io/protocols.h).
    private static let abis: Set<String> = ["x86_32-abi", "x86_64-abi", "arm-abi"]

    /// - Parameter capabilities: usbif.h has nothing to negotiate.
    init(_ reader: inout FrontendNodeReader, _ capabilities: Void) throws(FrontendNodeFault) {
        urbRing = try reader.reference(USBKeys.urbRingReference)
        connectionRing = try reader.reference(USBKeys.connectionRingReference)
        port = try reader.port(BusKeys.eventChannel)
        abi = reader[USBKeys.protocol]
        if let abi, !USBConnection.abis.contains(abi) {
            throw FrontendNodeFault(USBKeys.protocol, "is unknown: \(FrontendNodes.quoted(abi))")
        }
    }

    /// What identifies this connection, for the journal.
    /// - Parameter domain: a name for the frontend's domain that no other domain ever has.
    func identity(domain: String) -> String {
        "domain=\(domain);urb=\(urbRing.rawValue);conn=\(connectionRing.rawValue);port=\(port.rawValue)"
    }

    /// For people.
    var summary: String { "1 urb ring, 1 connection ring, \(abi ?? "native abi")" }
}
