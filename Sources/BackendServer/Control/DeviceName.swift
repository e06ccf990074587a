// Device names as people write them, and the devices they mean.

internal import ControlProtocol
internal import XenWire

/// The names of one device: its number (`0`), its kind and number (`vif/0`), a disk's name in the guest (`xvda`).
struct DeviceName: Hashable {
    let path: DevicePath
    /// The key `dev`.
    let node: String?

    init(_ path: DevicePath, node: String?) {
        self.path = path
        self.node = node
    }

    private func answers(to text: String) -> Bool {
        text == "\(path.index)" || text == path.nameInDomain || text == "\(path.kind.frontendKind)/\(path.index)"
            || node == text
    }

    /// The one device with that name.
    /// - Throws: `.noSuchDevice`, or `.ambiguousDevice` if several are.
    static func only(
        _ text: String,
        of domain: DomainID,
        among names: [DeviceName]
    ) throws(ControlError) -> DevicePath {
        let found = names.filter { $0.answers(to: text) }.map(\.path).sorted()
        guard let path = found.first else { throw .noSuchDevice(domain: "\(domain)", device: text) }
        if found.count == 1 { return path }
        // An exact name beats a number that other devices have, too.
        if let exact = found.first(where: { $0.nameInDomain == text }) { return exact }
        throw .ambiguousDevice(domain: "\(domain)", device: text, candidates: found.map(\.nameInDomain))
    }
}
