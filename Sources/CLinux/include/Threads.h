// What each of our threads does first.
#pragma once
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>

// Names the calling thread (at most 15 bytes are kept) and leaves all signals to the main thread.
static inline void linux_begin_thread(const char *name) {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, NULL);
    prctl(PR_SET_NAME, name, 0, 0, 0);
}

// Gives the calling thread, and the threads and processes that it starts from now on, an empty network of their own.
// Returns 0 or an errno value.
static inline int linux_own_network(void) { return unshare(CLONE_NEWNET) < 0 ? errno : 0; }
