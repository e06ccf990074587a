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

// What Swift cannot import: a variadic function, and the flexible array at the end of struct libusb_transfer.

// Contexts that are made later look for no devices: no thread, no netlink socket, no connection to udevd.
static inline void usb_forbid_discovery(void) { (void)libusb_set_option(NULL, LIBUSB_OPTION_NO_DEVICE_DISCOVERY); }

// What libusb does not fill in must not be the result of the transfer's last use.
static inline void usb_set_packet_length(struct libusb_transfer *transfer, int index, unsigned length) {
    transfer->iso_packet_desc[index].length = length;
    transfer->iso_packet_desc[index].actual_length = 0;
    transfer->iso_packet_desc[index].status = LIBUSB_TRANSFER_ERROR;
}
static inline unsigned usb_packet_actual_length(const struct libusb_transfer *transfer, int index) {
    return transfer->iso_packet_desc[index].actual_length;
}
static inline int usb_packet_status(const struct libusb_transfer *transfer, int index) {
    return (int)transfer->iso_packet_desc[index].status;
}
