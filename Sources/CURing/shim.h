// liburing: its inline functions import as they are.
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#ifndef __XEN_INTERFACE_VERSION__
#define __XEN_INTERFACE_VERSION__ 0x00040e00
#endif
#include <stdint.h>
#include <liburing.h>
