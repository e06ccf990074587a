// poll(2) on one descriptor, for callers that should not need a pointer for it.
#pragma once
#include <poll.h>

// Which of `events`, errors and hang-ups hold for `descriptor` now.
static inline short linux_poll_now(int descriptor, short events) {
    struct pollfd entry = {.fd = descriptor, .events = events};
    return poll(&entry, 1, 0) == 1 ? entry.revents : 0;
}

// Whether `descriptor` can be read within `milliseconds`.
static inline _Bool linux_is_readable(int descriptor, int milliseconds) {
    struct pollfd entry = {.fd = descriptor, .events = POLLIN};
    return poll(&entry, 1, milliseconds) == 1 && (entry.revents & POLLIN) != 0;
}
