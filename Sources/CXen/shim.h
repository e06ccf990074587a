// Xen's user-space libraries, with the few calls Swift cannot import.
// Only those whose soname does not change with the Xen release (libxenctrl and libxenguest change): one binary serves
// them all. A hypercall that these libraries do not make goes through libxencall, which is stable as well.
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
// Gives the public headers at their own version: without it they describe the oldest interface they know (xen-compat.h).
#define __XEN_TOOLS__ 1
#include <stdint.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <xenevtchn.h>
#include <xengnttab.h>
#include <xencall.h>
#include <xentoollog.h>
#include <xen/io/xs_wire.h>
#include <xen/xen.h>
#include <xen/physdev.h>

// libxengnttab writes a line to stderr for each reference it cannot map, and references are a frontend's: only what
// the libraries call critical may be written.
static inline xentoollog_logger *xen_quiet_logger(void) {
    return (xentoollog_logger *)xtl_createlogger_stdiostream(stderr, XTL_CRITICAL, 0);
}
