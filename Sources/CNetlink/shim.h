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
#include <netlink/route/link/sriov.h>
#include <netlink/route/route.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/filter.h>
#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

// linux/if_bridge.h, which brings linux/in6.h against netinet/in.h's types.
struct netlink_bridge_vlan {
    uint16_t flags, identifier;
};
#define NETLINK_BRIDGE_VLAN_INFO 2     // IFLA_BRIDGE_VLAN_INFO
#define NETLINK_BRIDGE_VLAN_PVID 2     // BRIDGE_VLAN_INFO_PVID
#define NETLINK_BRIDGE_VLAN_UNTAGGED 4 // BRIDGE_VLAN_INFO_UNTAGGED

// A socket that is readable whenever the kernel says something about the interface of that index, and only then: of a
// host with hundreds of interfaces no other one wakes its reader. The filter sees `struct ifinfomsg` behind the header,
// and loads words in network order.
// Returns the descriptor (non-blocking, close-on-exec) or a negated errno.
static inline int netlink_watch_link(int index) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, sizeof(struct nlmsghdr) + 4 /* ifi_index */),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, htonl((uint32_t)index), 0, 1),
        BPF_STMT(BPF_RET | BPF_K, 0xffffffffu),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    struct sock_fprog program = {.len = sizeof(code) / sizeof(code[0]), .filter = code};
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
    int descriptor = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (descriptor < 0) return -errno;
    if (setsockopt(descriptor, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program)) < 0 ||
        bind(descriptor, (struct sockaddr *)&address, sizeof(address)) < 0) {
        int number = errno;
        close(descriptor);
        return -number;
    }
    return descriptor;
}

// Takes all that waits there.
static inline void netlink_take_news(int descriptor) {
    char byte;
    // ENOBUFS tells that some was lost: there was news all the same.
    while (recv(descriptor, &byte, 1, MSG_DONTWAIT | MSG_TRUNC) >= 0 || errno == ENOBUFS || errno == EINTR) {}
}
