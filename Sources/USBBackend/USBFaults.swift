// Everything that can go wrong with an URB, whose fault it is, and the answer it gets.

internal import HostUSB
internal import SharedRing
internal import XenWire

/// Why an URB did not complete as asked.
enum USBFault: Error, Hashable, Sendable {
    /// The URB itself is wrong.
    case request(URBFault)
    /// Xen refused one of its grants.
    case grant(GrantStatus)
    /// The hypervisor could not be asked.
    case hypervisor(String)
    /// The port is empty.
    case emptyPort
    /// The device in the port has another address.
    case address(UInt8, expected: UInt8)
    /// The device has no such endpoint, or one of another type.
    case endpoint(USBEndpointAddress)
    /// A control request that no guest may make of a device.
    case control(USBControlRequest.Refusal)
    /// The transfer ended like this on the host.
    case transfer(USBStatus)
    /// The frontend unlinked it.
    case unlinked
    /// The device was removed from the port, or the connection ends.
    case gone
    /// A worker died while it was in flight.
    case lost

    /// Whose fault it is; decides how it is logged and counted.
    enum Origin: Sendable { case frontend, host, device, nobody }

    /// The one place where faults become answers.
    ///
    /// `shutdown` makes drivers stop: it is for devices that are gone. `ioError` makes them try again: usb-storage resets
    /// the device and repeats the command, usbhid waits and asks again, usb-audio goes on with the next packets.
    var verdict: (status: URBStatus, origin: Origin) {
        switch self {
        case .request(let fault): (fault.status, .frontend)
        case .grant: (.invalid, .frontend)
        case .hypervisor: (.ioError, .host)
        case .emptyPort: (.noDevice, .nobody)
        case .address: (.noDevice, .nobody)
        case .endpoint: (.invalid, .nobody)
        case .control: (.stall, .nobody)
        case .transfer(let status): (USBFault.status(of: status), status == .refused ? .host : .device)
        case .unlinked: (.unlinked, .nobody)
        case .gone: (.shutdown, .nobody)
        case .lost: (.ioError, .nobody)
        }
    }

    private static func status(of status: USBStatus) -> URBStatus {
        switch status {
        // usbcore turns a short transfer into -EREMOTEIO by itself.
        case .completed, .short: .okay
        case .stall: .stall
        case .overflow: .babble
        case .timeout, .transactionError: .ioError
        case .noDevice, .cancelled: .shutdown
        case .refused: .invalid
        }
    }
}

extension USBFault: CustomStringConvertible {
    var description: String {
        switch self {
        case .request(let fault): fault.description
        case .grant(let status): "a grant was refused (GNTST \(status.rawValue))"
        case .hypervisor(let text): "cannot copy: \(text)"
        case .emptyPort: "the port is empty"
        case .address(let address, let expected): "address \(address), the device has \(expected)"
        case .endpoint(let endpoint): "the device has no such \(endpoint)"
        case .control(let refusal): "a control request that is refused: \(refusal)"
        case .transfer(let status): "the transfer ended with '\(status)'"
        case .unlinked: "taken back"
        case .gone: "the device is gone"
        case .lost: "lost with the worker that had it"
        }
    }
}

extension PacketStatus {
    /// What a guest's driver reads in its frame descriptor.
    init(_ status: USBStatus) {
        switch status {
        case .completed, .short: self = .okay
        case .stall: self = .stall
        case .overflow: self = .babble
        case .timeout: self = .noAnswer
        case .transactionError: self = .protocolError
        case .cancelled, .refused: self = .missed
        case .noDevice: self = .shutdown
        }
    }
}
