// liburing: its inline functions import as they are.
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
// The kernel's header first: liburing's copy of it has the same guard and older contents, and swift-system's C module
// uses the kernel's.
#include <linux/io_uring.h>
#include <liburing.h>
#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

// io_uring_enable_rings, which Debian 12's library declares and does not contain.
static inline int uring_enable(const struct io_uring *ring) {
    long status = syscall(__NR_io_uring_register, ring->ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    return status < 0 ? -errno : 0;
}

// io_uring_prep_fallocate, whose offset and length are off_t in Debian 12's library and __u64 in Debian 13's.
static inline void uring_prep_fallocate(struct io_uring_sqe *sqe, int fd, int mode, uint64_t offset, uint64_t length) {
    io_uring_prep_fallocate(sqe, fd, mode, offset, length);
}
