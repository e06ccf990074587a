// Messages about devices (netlink(7), NETLINK_KOBJECT_UEVENT), from the kernel and from udevd only.
#pragma once
#include <errno.h>
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define UEVENT_KERNEL 1 // multicast groups, as bits
#define UEVENT_UDEV 2

// A non-blocking socket in both groups. Returns the descriptor or a negated errno value.
static inline int uevent_socket(void) {
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);
    if (fd < 0) return -errno;
    struct sockaddr_nl address;
    memset(&address, 0, sizeof address);
    address.nl_family = AF_NETLINK;
    address.nl_groups = UEVENT_KERNEL | UEVENT_UDEV;
    int on = 1, bytes = 1 << 20;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) < 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
    if (setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        int status = -errno;
        close(fd);
        return status;
    }
    return fd;
}

// Reads one message. Returns its length; 0 for one that did not fit, or that comes neither from the kernel nor from a
// process of root's; or a negated errno value.
static inline long uevent_receive(int fd, void *bytes, unsigned long capacity) {
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct sockaddr_nl sender;
    struct iovec vector = {bytes, capacity};
    struct msghdr message;
    memset(&message, 0, sizeof message);
    memset(&sender, 0, sizeof sender);
    message.msg_name = &sender;
    message.msg_namelen = sizeof sender;
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    long received = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    if (received < 0) return -errno;
    struct cmsghdr *part = CMSG_FIRSTHDR(&message);
    if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) || !part || part->cmsg_level != SOL_SOCKET ||
        part->cmsg_type != SCM_CREDENTIALS)
        return 0;
    struct ucred credentials;
    memcpy(&credentials, CMSG_DATA(part), sizeof credentials);
    if (credentials.uid != 0) return 0;
    // Only the kernel sends as port 0, and only it may say what the kernel says.
    if (sender.nl_family == AF_NETLINK && sender.nl_groups == UEVENT_KERNEL && sender.nl_pid != 0) return 0;
    return received;
}
