// A handler may only do what is safe at any instruction: it writes the signal's number into a pipe.
#include "include/ServiceSignals.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static int ends[2] = {-1, -1};

static void note(int number) {
    int saved = errno;
    unsigned char byte = (unsigned char)number;
    // A full pipe already holds more signals than anybody will read.
    if (write(ends[1], &byte, 1) < 0) errno = saved;
    errno = saved;
}

int service_signals_begin(void) {
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP};
    struct sigaction action;
    if (pipe(ends) != 0) return errno;
    for (int end = 0; end < 2; end++) fcntl(ends[end], F_SETFD, FD_CLOEXEC);
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    signal(SIGPIPE, SIG_IGN);
    memset(&action, 0, sizeof action);
    action.sa_handler = note;
    action.sa_flags = SA_RESTART;
    sigfillset(&action.sa_mask);
    for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (sigaction(numbers[i], &action, 0) != 0) return errno;
    return 0;
}

int service_signals_next(void) {
    unsigned char byte;
    ssize_t count;
    do count = read(ends[0], &byte, 1);
    while (count < 0 && errno == EINTR);
    return count == 1 ? byte : SIGTERM;
}
