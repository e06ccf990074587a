// libnl-route: links, bridges, addresses and routes of the host.
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
// As CLinux.h explains.
#include <features.h>
#undef __USE_XOPEN
#undef __USE_GNU
#include <sys/select.h>
#include <sys/resource.h>
#define __USE_XOPEN 1
#define __USE_GNU 1
#ifndef __XEN_INTERFACE_VERSION__
#define __XEN_INTERFACE_VERSION__ 0x00040e00
#endif
#include <stdint.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <netlink/route/link.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/route/addr.h>
#include <netlink/route/link/bridge.h>
#include <netlink/route/route.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>

// linux/if_bridge.h, which brings linux/in6.h against netinet/in.h's types.
struct netlink_bridge_vlan {
    uint16_t flags, identifier;
};
#define NETLINK_BRIDGE_VLAN_INFO 2     // IFLA_BRIDGE_VLAN_INFO
#define NETLINK_BRIDGE_VLAN_PVID 2     // BRIDGE_VLAN_INFO_PVID
#define NETLINK_BRIDGE_VLAN_UNTAGGED 4 // BRIDGE_VLAN_INFO_UNTAGGED
