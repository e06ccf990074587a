// libusb: devices of the host's USB buses, asynchronously.
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
#include <libusb.h>
