// Messages that carry file descriptors: the CMSG macros of cmsg(3) are not importable.
#pragma once
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define LINUX_DESCRIPTORS_MAX 8

// sendmsg(2) of one message with up to LINUX_DESCRIPTORS_MAX descriptors beside it.
static inline ssize_t linux_send_descriptors(int socket, const void *bytes, size_t byte_count, const int *descriptors,
                                             unsigned descriptor_count) {
    struct iovec vector = {(void *)bytes, byte_count};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int) * LINUX_DESCRIPTORS_MAX)];
    } control;
    struct msghdr message = {0};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    if (descriptor_count > LINUX_DESCRIPTORS_MAX) descriptor_count = LINUX_DESCRIPTORS_MAX;
    if (descriptor_count > 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * descriptor_count);
        struct cmsghdr *part = CMSG_FIRSTHDR(&message);
        part->cmsg_level = SOL_SOCKET;
        part->cmsg_type = SCM_RIGHTS;
        part->cmsg_len = CMSG_LEN(sizeof(int) * descriptor_count);
        memcpy(CMSG_DATA(part), descriptors, sizeof(int) * descriptor_count);
    }
    return sendmsg(socket, &message, MSG_NOSIGNAL);
}

// recvmsg(2) of one message and up to LINUX_DESCRIPTORS_MAX descriptors (close-on-exec), whose number goes to
// *descriptor_count. `descriptors` has room for LINUX_DESCRIPTORS_MAX.
static inline ssize_t linux_receive_descriptors(int socket, void *bytes, size_t capacity, int *descriptors,
                                                unsigned *descriptor_count) {
    struct iovec vector = {bytes, capacity};
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof(int) * LINUX_DESCRIPTORS_MAX)];
    } control;
    struct msghdr message = {0};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    *descriptor_count = 0;
    ssize_t received = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    if (received < 0) return received;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(&message); part; part = CMSG_NXTHDR(&message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
        unsigned count = (unsigned)((part->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        if (count > LINUX_DESCRIPTORS_MAX) count = LINUX_DESCRIPTORS_MAX;
        memcpy(descriptors, CMSG_DATA(part), count * sizeof(int));
        *descriptor_count = count;
    }
    return received;
}

// accept4(2) without the peer's address, close-on-exec.
static inline int linux_accept(int socket) { return accept4(socket, (struct sockaddr *)0, (socklen_t *)0, SOCK_CLOEXEC); }
