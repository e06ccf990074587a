// SIGTERM, SIGINT and SIGHUP as numbers to be read, whichever thread the kernel gives them to.
#pragma once

// Installs the handlers (and ignores SIGPIPE). Returns 0 or an errno value. To be called once.
int service_signals_begin(void);

// Waits for the next of the signals and returns its number.
int service_signals_next(void);
