// Names of the XenStore keys of network devices (public/io/netif.h; xen-netback and xen-netfront where it is silent).

/// Keys of the backend's and the frontend's half, beyond those of `BusKeys`.
public enum NetKeys {
    // Backend, written by the toolstack.
    /// The frontend's address (both halves): `aa:bb:cc:dd:ee:ff`.
    public static let mac = "mac"
    /// The number of the device in the guest (both halves).
    public static let handle = "handle"
    /// What libxl calls the device's model: `vif`, `ioemu`.
    public static let type = "type"
    public static let bridge = "bridge"
    /// The host's name for the interface, if not `vif<domid>.<devid>`.
    public static let interfaceName = "vifname"
    public static let ip = "ip"
    public static let gatewayDevice = "gatewaydev"
    public static let vlan = "vlan"
    /// `<bytes>,<microseconds>`: what a frontend may send; see `TransmitRate`.
    public static let rate = "rate"
    /// Both halves; missing: 1500.
    public static let mtu = "mtu"
    /// Frontend, written by the toolstack: 0 if the frontend need not trust its backend. Nothing changes on the wire.
    public static let trusted = "trusted"

    // Backend: features, before state 2.
    /// Both halves: packets may take more than one slot.
    public static let featureScatterGather = "feature-sg"
    /// Both halves: TCP over IPv4 in pieces beyond the MTU.
    public static let featureSegmentationV4 = "feature-gso-tcpv4"
    /// Both halves: TCP over IPv6 in pieces beyond the MTU.
    public static let featureSegmentationV6 = "feature-gso-tcpv6"
    /// Both halves: 1 if checksums over IPv4 may **not** be blank.
    public static let featureNoChecksumOffload = "feature-no-csum-offload"
    /// Both halves: checksums over IPv6 may be blank.
    public static let featureChecksumOffloadV6 = "feature-ipv6-csum-offload"
    /// Mandatory: without it no frontend takes the device.
    public static let featureReceiveCopy = "feature-rx-copy"
    /// 0: pages are not flipped, and never will be.
    public static let featureReceiveFlip = "feature-rx-flip"
    public static let featureMulticastControl = "feature-multicast-control"
    public static let featureDynamicMulticastControl = "feature-dynamic-multicast-control"
    public static let featureSplitEventChannels = "feature-split-event-channels"
    public static let featureControlRing = "feature-ctrl-ring"
    /// 0: the link is down; missing: up.
    public static let carrier = "carrier"

    // Frontend.
    public static let transmitRingReference = "tx-ring-ref"
    public static let receiveRingReference = "rx-ring-ref"
    public static let eventChannelTransmit = "event-channel-tx"
    public static let eventChannelReceive = "event-channel-rx"
    public static let controlRingReference = "ctrl-ring-ref"
    public static let eventChannelControl = "event-channel-ctrl"
    /// Must be 1.
    public static let requestReceiveCopy = "request-rx-copy"
    /// 1: the frontend notifies when it posts buffers; 0: it must be polled.
    public static let featureReceiveNotify = "feature-rx-notify"
    /// 1: multicast packets only for addresses that were added.
    public static let requestMulticastControl = "request-multicast-control"
    /// Bytes to leave free before received data.
    public static let headroom = "xdp-headroom"
}
