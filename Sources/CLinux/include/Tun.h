// TAP interfaces (linux/if_tun.h): ioctl numbers that Swift cannot import, and struct ifreq's unions.
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

// struct ifreq of linux/if.h, as far as TUNSETIFF and TUNSETQUEUE look at it: net/if.h and linux/if.h cannot be read
// together.
struct tun_request {
    char name[16];
    short flags;
    char rest[22];
};
_Static_assert(sizeof(struct tun_request) == 40, "struct ifreq");

#define TUN_REQUEST_FLAGS (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE)

// Opens a queue of the multi-queue TAP `name` in the caller's network namespace; `exclusive`: of a new one only (EBUSY
// if there is an interface of that name). Packets begin with a little-endian virtio_net_hdr of `header` bytes. Returns
// the descriptor, non-blocking and close-on-exec, or a negated errno value.
static inline int tun_open_queue(const char *name, int exclusive, int header) {
    struct tun_request request;
    memset(&request, 0, sizeof request);
    strncpy(request.name, name, sizeof request.name - 1);
    request.flags = (short)(TUN_REQUEST_FLAGS | (exclusive ? IFF_TUN_EXCL : 0));
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) return -errno;
    int little = 1;
    if (ioctl(fd, TUNSETIFF, &request) < 0 || ioctl(fd, TUNSETVNETHDRSZ, &header) < 0 ||
        ioctl(fd, TUNSETVNETLE, &little) < 0) {
        int status = -errno;
        close(fd);
        return status;
    }
    return fd;
}

// Lets the interface outlive its last descriptor, or not. Returns 0 or an errno value.
static inline int tun_set_persistent(int fd, int on) { return ioctl(fd, TUNSETPERSIST, (long)on) < 0 ? errno : 0; }

// TUN_F_ flags. Returns 0 or an errno value.
static inline int tun_set_offloads(int fd, unsigned flags) {
    return ioctl(fd, TUNSETOFFLOAD, (unsigned long)flags) < 0 ? errno : 0;
}

// Takes an attached queue out of service: no packets come to it, the descriptor keeps its place at the interface.
// Returns 0 or an errno value.
static inline int tun_park_queue(int fd) {
    struct tun_request request;
    memset(&request, 0, sizeof request);
    request.flags = IFF_DETACH_QUEUE;
    return ioctl(fd, TUNSETQUEUE, &request) < 0 ? errno : 0;
}

// Whether there is an interface behind the queue: 0, EBADFD after it was deleted, or another errno value.
static inline int tun_look(int fd) {
    struct tun_request request;
    memset(&request, 0, sizeof request);
    return ioctl(fd, TUNGETIFF, &request) < 0 ? errno : 0;
}
