// Linux calls and constants that the Glibc module lacks or that Swift cannot import.
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
// swift-system's CSystem and the Glibc module see these two headers without _GNU_SOURCE, and clang refuses modules that
// disagree on a type: so they are read here the same way.
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
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <string.h>
#include <linux/fs.h>
#include <linux/falloc.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>
#include "Descriptors.h"
#include "Files.h"
#include "Poll.h"
#include "Spawn.h"
#include "ServiceSignals.h"
#include "Threads.h"
#include "Tun.h"
#include "Uevents.h"
#include "UnixSocket.h"
#include "Vhost.h"
