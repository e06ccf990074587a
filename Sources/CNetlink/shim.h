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
