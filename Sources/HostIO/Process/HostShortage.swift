// Temporary shortages of the host, and what the administrator can do about them.

internal import Glibc
public import SystemPackage

/// Errors that pass when resources become available.
public enum HostShortage {
    /// - Returns: nil if waiting does not help.
    public static func cure(_ error: Errno) -> String? {
        switch error.rawValue {
        case ENOSPC, EDQUOT: "make room in the run directory's file system (df -h and df -i show how full it is)"
        case ENOMEM: "the host is short of memory"
        case EMFILE, ENFILE: "too many files are open (LimitNOFILE of the service, sysctl fs.file-max)"
        default: nil
        }
    }

    /// The error, and the cure if there is one.
    public static func text(_ error: Errno) -> String { cure(error).map { "\(error); \($0)" } ?? "\(error)" }
}
