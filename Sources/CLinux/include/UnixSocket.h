// Unix stream sockets without sockaddr's transparent unions, which Swift cannot import.
#pragma once
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "Descriptors.h"

// -1 and ENAMETOOLONG if the path leaves no room for its closing NUL (unix(7)).
static inline int unix_address(struct sockaddr_un *address, const char *path) {
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof address->sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    strcpy(address->sun_path, path);
    return 0;
}

static inline int unix_socket(int nonblocking) {
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | (nonblocking ? SOCK_NONBLOCK : 0), 0);
}

// Keeps the bounds of packets.
static inline int unix_packet_socket(int nonblocking) {
    return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | (nonblocking ? SOCK_NONBLOCK : 0), 0);
}

// Room for what was sent and not yet read. More than net.core.wmem_max needs CAP_NET_ADMIN; without it there is less.
static inline void unix_widen(int fd, int bytes) {
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes) < 0)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
}

static inline int unix_bind(int fd, const char *path) {
    struct sockaddr_un address;
    return unix_address(&address, path) ? -1 : bind(fd, (const struct sockaddr *)&address, sizeof address);
}

static inline int unix_connect(int fd, const char *path) {
    struct sockaddr_un address;
    return unix_address(&address, path) ? -1 : connect(fd, (const struct sockaddr *)&address, sizeof address);
}

static inline int unix_accept(int fd, int nonblocking) {
    return accept4(fd, NULL, NULL, SOCK_CLOEXEC | (nonblocking ? SOCK_NONBLOCK : 0));
}

// A closed peer is EPIPE, never a signal.
static inline ssize_t unix_send(int fd, const void *bytes, size_t count) { return send(fd, bytes, count, MSG_NOSIGNAL); }

// One datagram to the service manager (sd_notify(3)), with a descriptor unless that is negative: "@name" is a name in the
// abstract namespace. 0, or an errno value.
static inline int service_notify(const char *path, const char *text, int passed) {
    struct sockaddr_un address;
    if (unix_address(&address, path)) return errno;
    socklen_t length = offsetof(struct sockaddr_un, sun_path) + strlen(path);
    if (path[0] == '@') address.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return errno;
    ssize_t sent = connect(fd, (const struct sockaddr *)&address, length);
    if (sent == 0) sent = linux_send_descriptors(fd, text, strlen(text), &passed, passed < 0 ? 0 : 1);
    int status = sent < 0 ? errno : 0;
    close(fd);
    return status;
}
