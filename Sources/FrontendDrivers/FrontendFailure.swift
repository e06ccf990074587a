// What can go wrong for a frontend, from its own point of view.

public import Hypervisor
public import NetChannel2
public import SharedRing
public import XenWire

/// Why a frontend's call did not succeed.
public enum FrontendFailure: Error, Sendable, CustomStringConvertible {
    case hypervisor(HypervisorFailure)
    /// The backend did not reach the state; `saw` is its last one, nil if its node is gone.
    case timedOut(waitingFor: [XenbusState], saw: XenbusState?)
    /// A key of the backend is missing or invalid.
    case badKey(String, value: String?)
    /// The request was answered with an error.
    case answered(BlockStatus)
    /// The control request was answered with an error.
    case refused(ControlResponse)
    /// The URB was answered with an error.
    case urb(URBStatus)
    /// The PCI operation was.
    case pci(PCIError)
    /// A device behind the backend violated its class's protocol.
    case device(String)
    /// The backend answered more than it was asked.
    case ring(ResponseProducerFault)
    /// It broke the rules of a netchannel2 link.
    case link(NetChannel2LinkFault)
    case badResponse(id: UInt64)
    /// Not connected, or no longer.
    case closed
    /// This connection cannot make the request.
    case unsupported(String)

    public var description: String {
        switch self {
        case .hypervisor(let failure): "\(failure)"
        case .timedOut(let wanted, let saw):
            "the backend is \(saw?.description ?? "gone"), not \(wanted.map(\.description).joined(separator: " or "))"
        case .badKey(let key, let value): "the backend's \(key) is \(value ?? "missing")"
        case .answered(let status): "answered with \(status)"
        case .refused(let answer): "\(answer.type) answered with \(answer.status)"
        case .urb(let status): "the URB was answered with \(status)"
        case .pci(let error): "the operation was answered with \(error)"
        case .device(let what): "the device \(what)"
        case .ring(let fault): "the ring is wrong: \(fault)"
        case .link(let fault): "the backend broke the link: \(fault)"
        case .badResponse(let id): "a response to no request (\(id))"
        case .closed: "not connected"
        case .unsupported(let what): "the backend does not offer \(what)"
        }
    }
}

/// Runs a hypervisor call with its failure as ours.
func hypervisor<R>(_ body: () throws(HypervisorFailure) -> R) throws(FrontendFailure) -> R {
    do throws(HypervisorFailure) { return try body() } catch { throw .hypervisor(error) }
}

/// The same for calls that wait.
package func storing<R>(
    _ body: () async throws(HypervisorFailure) -> R
) async throws(FrontendFailure) -> R {
    do throws(HypervisorFailure) { return try await body() } catch { throw .hypervisor(error) }
}
