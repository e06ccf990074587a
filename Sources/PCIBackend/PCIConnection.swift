// What frontend and backend agreed on: one page and a port. Every number of the frontend is checked here, once.

internal import BackendCore
internal import XenWire

/// The negotiated facts of one connection; immutable.
struct PCIConnection: NegotiatedConnection, Hashable {
    let page: GrantReference
    /// The frontend's port.
    let port: EventChannelPort

    static let firstKeys = [PCIKeys.pageReference, BusKeys.eventChannel, PCIKeys.magic]

    /// - Parameter capabilities: pciif.h has nothing to negotiate.
    init(_ reader: inout FrontendNodeReader, _ capabilities: Void) throws(FrontendNodeFault) {
        page = try reader.reference(PCIKeys.pageReference)
        port = try reader.port(BusKeys.eventChannel)
        guard reader[PCIKeys.magic] == PCIWire.magic else {
            let magic = FrontendNodes.quoted(reader[PCIKeys.magic])
            throw FrontendNodeFault(PCIKeys.magic, "is \(magic), and pciif.h's is \(PCIWire.magic)")
        }
    }

    /// What identifies this connection, for the journal.
    /// - Parameter domain: a name for the frontend's domain that no other domain ever has.
    func identity(domain: String) -> String {
        "domain=\(domain);page=\(page.rawValue);port=\(port.rawValue)"
    }

    /// For people.
    var summary: String { "1 page, magic \(PCIWire.magic)" }
}
