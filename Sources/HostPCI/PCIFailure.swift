// What went wrong on the host's side, and what to do about it.

public import HostIO

/// Something of the host's PCI did not work.
public typealias PCIFailure = HostFailure
