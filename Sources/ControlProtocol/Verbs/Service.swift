// The two verbs of org.varlink.service that every Varlink service has.

/// Who answers here, and which interfaces he has.
public struct GetInfo: ControlVerb {
    public static let name = "GetInfo"
    public static let method = "org.varlink.service.GetInfo"

    public struct Reply: Codable, Equatable, Sendable {
        public var vendor: String
        public var product: String
        public var version: String
        public var url: String
        public var interfaces: [String]
    }

    public init() {}
}

/// The text of one of them.
public struct GetInterfaceDescription: ControlVerb {
    public static let name = "GetInterfaceDescription"
    public static let method = "org.varlink.service.GetInterfaceDescription"

    public struct Reply: Codable, Equatable, Sendable { public var description: String }

    public var interface: String

    public init(interface: String) { self.interface = interface }
}

extension GetInterfaceDescription {
    /// All interfaces of this service.
    static let texts = [
        ControlInterface.name: ControlInterface.description,
        ControlInterface.serviceName: """
        # The interface that every Varlink service has.
        interface org.varlink.service

        method GetInfo() -> (vendor: string, product: string, version: string, url: string, interfaces: []string)

        method GetInterfaceDescription(interface: string) -> (description: string)

        error InterfaceNotFound (interface: string)

        error MethodNotFound (method: string)

        error MethodNotImplemented (method: string)

        error InvalidParameter (parameter: string)

        error PermissionDenied ()

        error ExpectedMore ()

        """,
    ]
}
