// poll(2) on one descriptor, for callers that should not need a pointer for it.
#pragma once
#include <poll.h>

// Whether `descriptor` can be read within `milliseconds`.
static inline _Bool linux_is_readable(int descriptor, int milliseconds) {
    struct pollfd entry = {.fd = descriptor, .events = POLLIN};
    return poll(&entry, 1, milliseconds) == 1 && (entry.revents & POLLIN) != 0;
}
