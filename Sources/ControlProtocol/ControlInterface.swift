// The control interface's names and its shipped description.

/// `org.xenback.control`: the Varlink interface that `xenback` and `xenbackd` speak.
public enum ControlInterface {
    /// The interface's name.
    public static let name = "org.xenback.control"

    /// Incremented when the interface is extended: 1 had reports as text only, 2 has them as data, too. Nothing is
    /// removed or changes its meaning within a name, so that older clients keep working.
    public static let version = 2

    /// The interface that every Varlink service has in addition to its own (varlink.org, "Service Interface").
    public static let serviceName = "org.varlink.service"

    /// The text of `org.xenback.control.varlink`, as installed in /usr/share/varlink.
    public static var description: String {
        String(decoding: PackageResources.org_xenback_control_varlink, as: UTF8.self)
    }

    /// Where the broker listens by default.
    public static let defaultSocketPath = "/run/xenbackd/control"
}
